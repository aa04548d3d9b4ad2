"""Tests that need a phone say so by asking for one. Run with `pytest -n 2`."""

import pytest


def test_it_is_what_was_asked_for(phone):
    assert phone["labels"]["os"] == "android"


@pytest.mark.parametrize("attempt", range(4))
def test_a_worker_keeps_its_phone(phone, lease, attempt, record_property):
    record_property("phone", phone["name"])
    print(phone["name"], lease["fence"])
    assert lease["fence"] > 0
