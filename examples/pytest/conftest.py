"""A phone for the tests: one lease per pytest process, so one per worker under `pytest -n 4`.

`leasehold acquire --while-stdin` holds the lease for as long as its stdin is open. When pytest
ends, in whatever way, the pipe closes and the phone is free. LEASEHOLD_URL says where the broker is.
"""

import json
import os
import subprocess

import pytest

LEASEHOLD = os.environ.get("LEASEHOLD", "leasehold")
NEED = os.environ.get("PHONE_NEED", "phone,os=android")


@pytest.fixture(scope="session")
def lease(request):
    """Everything that is known of the lease: `fence`, `resources` by alias, `until` ..."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    command = [LEASEHOLD, "acquire", "-n", NEED, "--while-stdin", "--note", f"pytest {worker}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        line = holder.stdout.readline()
        if not line:
            pytest.exit(f"no phone: leasehold ended with {holder.wait()}", returncode=holder.returncode)
        yield json.loads(line)
        holder.stdin.close()


@pytest.fixture
def phone(lease):
    """The phone of this worker: `name`, `labels`, `properties`."""
    return lease["resources"]["phone"][0]
