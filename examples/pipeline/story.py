"""The pipeline layer on one machine, as a story: a pull request, its build on a phone, and what else can happen.

    cargo build && python3 examples/pipeline/story.py

It makes everything in a folder of its own: a bare git repository, a broker with a lab of one phone, an agent, and
a stand-in for GitHub that sends signed deliveries and shows what is told of each commit. Then it plays:

    1. A pull request is opened. Its build needs the phone; its log is followed while it runs; the pull request
       shows it waiting, running, passed.
    2. Another push, and its test hangs. A third push takes its place: what ran is stopped, and the phone goes to the
       newer build as soon as the last process of the older one is gone.
    3. A pull request from a fork waits, holding nothing, until somebody allows that very commit.
    4. Where Podman is installed: a build in a container.

It ends with 0 when everything went as told here, so it is a test too. Nothing but Python's standard library is used;
`LEASEHOLD` names another binary than target/debug/leasehold.
"""

import hashlib
import hmac
import http.server
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import uuid

HERE = pathlib.Path(__file__).resolve().parent
LEASEHOLD = os.environ.get("LEASEHOLD") or str(HERE.parent.parent / "target" / "debug" / "leasehold")
REPOSITORY = "acme/app"
SECRET = "what GitHub and the broker both know"
TOKEN = "the token with which statuses are told"
PATIENCE_S = 120

# What the repository's own pipelines are. The broker reads this at the commit; of a fork's, at the base.
PIPELINES = """
[[pipeline]]
name = "phone"
on = ["pull_request"]
needs = ["phone,os=android"]
run = "./test.sh"
grace = "20s"
timeout = "10m"
"""

# The lock is a witness from outside: if two builds ever had the phone at once, the second would fail here.
TEST = """#!/bin/sh
exec 9>"$PHONE_LOCK"
flock -n 9 || { echo "error: somebody else is using the phone"; exit 1; }
echo "testing on $LEASEHOLD_PHONE_NAME (fence $LEASEHOLD_FENCE)"
"""
PASSES = "echo 'the icon is blue'\n"
HANGS = """
trap 'echo "told to stop; switching the phone off"; sleep 1; echo "the phone is off"; exit 1' TERM
echo "waiting for an answer that never comes"
while :; do sleep 0.1; done
"""

LAB = """
[[pool]]
name = "phone"
ttl = "1m"
max_hold = "1h"

[[resource]]
name = "pixel-8"
pool = "phone"
labels = { os = "android" }
"""


def say(text=""):
    print(text, flush=True)


def tell(who, text):
    """One line of the story, by whom it is about."""
    print(f"  {who + ':':<14}{text}", flush=True)


def chapter(title):
    say(f"\n== {title}")


def until(what, look):
    """Looks until there is something, and answers it."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.05)
    raise SystemExit(f"waited {PATIENCE_S} s in vain: {what}")


def expect(holds, what):
    if not holds:
        raise SystemExit(f"not as told: {what}")


class Forge(http.server.ThreadingHTTPServer):
    """As much of GitHub as the story needs: it delivers signed events, and takes commit statuses."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), ForgeHandler)
        self.statuses = {}
        self.lock = threading.Lock()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def api(self):
        return f"http://127.0.0.1:{self.server_port}"

    def take(self, sha, status):
        with self.lock:
            self.statuses.setdefault(sha, []).append(status)
        link = status["target_url"].split("/", 3)[-1]
        tell("pull request", f"{status['context']} {status['state']}: {status['description']} (/{link})")

    def history(self, sha):
        with self.lock:
            return list(self.statuses.get(sha, []))

    def comes_to_show(self, sha, state):
        """Waits until the newest status of a commit is this one."""

        def look():
            history = self.history(sha)
            return history and history[-1]["state"] == state and history[-1]

        return until(f"the pull request shows {state} for {sha[:10]}", look)

    def deliver(self, broker, action, number, head, base, fork=False):
        """Sends what GitHub sends when something happens to a pull request."""
        here = {"id": 1, "full_name": REPOSITORY, "default_branch": "main"}
        there = {"id": 2, "full_name": "mallory/app"} if fork else here
        event = {
            "action": action,
            "number": number,
            "pull_request": {
                "number": number,
                "title": "Make the icon blue",
                "state": "open",
                "draft": False,
                "head": {"sha": head, "ref": "blue", "repo": there},
                "base": {"sha": base, "ref": "main", "repo": here},
            },
            "repository": here,
            "sender": {"login": "mallory" if fork else "alice"},
        }
        body = json.dumps(event).encode()
        signature = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
        request = urllib.request.Request(
            f"{broker.url}/hooks/github",
            body,
            {
                "Content-Type": "application/json",
                "X-GitHub-Event": "pull_request",
                "X-GitHub-Delivery": str(uuid.uuid4()),
                "X-Hub-Signature-256": f"sha256={signature}",
            },
        )
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            said = json.load(answer)
            tell("forge", f"pull request {number} {action}, commit {head[:10]}: {answer.status} {said['outcome']}")


class ForgeHandler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        status = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        parts = self.path.split("/")  # /repos/acme/app/statuses/SHA
        known = self.headers["Authorization"] == f"Bearer {TOKEN}"
        if known and parts[:5] == ["", "repos", "acme", "app", "statuses"]:
            self.server.take(parts[5], status)
            code, answer = 201, status
        else:
            code, answer = 401, {"message": "Bad credentials"}
        body = json.dumps(answer).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Repository:
    """A bare repository, and a work tree from which alice and mallory push."""

    def __init__(self, folder):
        self.bare = folder / "app.git"
        self.tree = folder / "tree"
        self.git("init", "--quiet", "--bare", "--initial-branch=main", self.bare)
        self.git("init", "--quiet", "--initial-branch=main", self.tree)
        (self.tree / ".leasehold.toml").write_text(PIPELINES)
        self.main = self.commit("Begin", PASSES, "refs/heads/main")

    def git(self, *args):
        identity = ["-c", "user.name=alice", "-c", "user.email=alice@example.com"]
        where = ["-C", self.tree] if self.tree.exists() else []
        done = subprocess.run(["git", *identity, *where, *args], check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def commit(self, title, ending, ref):
        """Commits a test with this ending, and pushes it to where the forge keeps it."""
        test = self.tree / "test.sh"
        test.write_text(TEST + ending)
        test.chmod(0o755)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "-m", title)
        self.git("push", "--quiet", self.bare, f"HEAD:{ref}")
        return self.git("rev-parse", "HEAD")


class Program:
    """A command of leasehold that goes on; its messages are kept for when something goes wrong."""

    def __init__(self, folder, name, args, **variables):
        self.messages = (folder / f"{name}.log").open("w+")
        environment = {**os.environ, "XDG_STATE_HOME": str(folder / "state"), **variables}
        self.process = subprocess.Popen(
            [LEASEHOLD, *args], cwd=folder, env=environment, stderr=self.messages, stdout=subprocess.DEVNULL
        )
        self.name = name

    def said(self):
        return pathlib.Path(self.messages.name).read_text()

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()


class Broker(Program):
    def __init__(self, folder, forge, repository, boxed):
        (folder / "lab.toml").write_text(LAB)
        (folder / "leasehold.toml").write_text(f"""
[[repository]]
name = "{REPOSITORY}"
forge = "github"
url = "{repository.bare}"
api = "{forge.api}"
token = {{ env = "FORGE_TOKEN" }}
pools = ["phone"]
""" + (CONTAINER_PIPELINE.format(bare=repository.bare, api=forge.api) if boxed else ""))
        args = ["serve", "--listen", "127.0.0.1:0", "--store", "sqlite:lab.db"]
        args += ["--inventory", "lab.toml", "--config", "leasehold.toml"]
        secrets = {"LEASEHOLD_GITHUB_WEBHOOK_SECRET": SECRET, "FORGE_TOKEN": TOKEN}
        super().__init__(folder, "broker", args, **secrets)
        until("the broker listens", lambda: "listening on ws://" in self.said() or self.process.poll() is not None)
        expect(self.process.poll() is None, f"the broker runs; it said:\n{self.said()}")
        self.authority = self.said().split("listening on ws://")[1].split()[0].strip("/,")
        self.url = f"http://{self.authority}"

    def types(self, who, *args):
        """A command as somebody would type it."""
        tell(who, f"types: leasehold {' '.join(args)}")
        environment = {**os.environ, "LEASEHOLD_URL": f"ws://{self.authority}"}
        done = subprocess.run([LEASEHOLD, *args], env=environment, capture_output=True, text=True)
        expect(done.returncode == 0, f"leasehold {' '.join(args)}: {done.stderr}")
        return done.stdout

    def get(self, path):
        with urllib.request.urlopen(self.url + path, timeout=PATIENCE_S) as answer:
            return answer.read().decode()

    def build(self, number):
        return json.loads(self.get(f"/v1/builds/{number}"))

    def comes_to_be(self, number, state):
        return until(f"build {number} is {state}", lambda: (b := self.build(number))["state"] == state and b)

    def newest(self, sha):
        """The build of a commit, once there is one."""

        def look():
            builds = json.loads(self.get("/v1/builds"))["items"]
            return next((build["build"] for build in builds if build["sha"] == sha), None)

        return until(f"there is a build of {sha[:10]}", look)

    def log(self, number):
        return self.get(f"/builds/{number}/log")

    def leases(self):
        return json.loads(self.get("/v1/leases"))["items"]

    def follow(self, number):
        """Prints a build's log while it grows; the thread ends with the log."""

        def read():
            with urllib.request.urlopen(f"{self.url}/builds/{number}/log?follow=1") as log:
                for line in log:
                    tell(f"log of #{number}", line.decode(errors="replace").rstrip())

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        return thread


def opened(forge, broker, repository):
    chapter("A pull request is opened")
    sha = repository.commit("Make the icon blue", PASSES, "refs/pull/7/head")
    forge.deliver(broker, "opened", 7, sha, repository.main)
    number = broker.newest(sha)
    log = broker.follow(number)
    status = forge.comes_to_show(sha, "success")
    log.join(PATIENCE_S)
    expect(not log.is_alive(), "following a log ends with the log")
    states = [status["state"] for status in forge.history(sha)]
    expect(states[0] == "pending" and states[-1] == "success", f"waiting before passed: {states}")
    expect(status["target_url"] == f"{broker.url}/builds/{number}", "the status leads to the build")
    text = broker.log(number)
    expect("testing on pixel-8" in text and "the icon is blue" in text, f"the log has it all:\n{text}")
    broker.comes_to_be(number, "passed")
    expect(not broker.leases(), "nothing is held when it is over")
    tell("lab", "the phone is free again")


def superseded(forge, broker, repository):
    chapter("A push whose test hangs, and one that takes its place")
    hanging = repository.commit("Ask the server", HANGS, "refs/pull/7/head")
    forge.deliver(broker, "synchronize", 7, hanging, repository.main)
    older = broker.newest(hanging)
    log = broker.follow(older)
    broker.comes_to_be(older, "running")
    until("its test waits", lambda: "never comes" in broker.log(older))
    held = [lease["lease"] for lease in broker.leases()]
    expect(held == [broker.build(older)["lease"]], f"the older build has the phone: {held}")

    fixed = repository.commit("Do not ask the server", PASSES, "refs/pull/7/head")
    forge.deliver(broker, "synchronize", 7, fixed, repository.main)
    newer = broker.newest(fixed)
    forge.comes_to_show(fixed, "success")
    log.join(PATIENCE_S)
    forge.comes_to_show(hanging, "failure")
    over = broker.comes_to_be(older, "superseded")
    began = broker.comes_to_be(newer, "passed")
    expect(over["superseded_by"] == newer, "the older build says what took its place")
    expect(over["ended_ms"] <= began["prepared_ms"], "the phone changed hands after the older one's end")
    waited = began["prepared_ms"] - over["ended_ms"]
    tell("lab", f"the phone went from #{older} to #{newer} {waited} ms after the last process was gone")
    text = broker.log(older)
    expect("the phone is off" in text, f"the older one could put things in order:\n{text}")


def fork(forge, broker, repository):
    chapter("A pull request from a fork")
    sha = repository.commit("Make it green", PASSES, "refs/pull/8/head")
    forge.deliver(broker, "opened", 8, sha, repository.main, fork=True)
    number = broker.newest(sha)
    broker.comes_to_be(number, "blocked")
    forge.comes_to_show(sha, "pending")
    expect(not broker.leases(), "what nobody has allowed holds nothing")
    broker.types("alice", "build", "approve", str(number), "--sha", sha)
    forge.comes_to_show(sha, "success")
    allowed = broker.comes_to_be(number, "passed")
    tell("history", f"allowed by {allowed['approved_by']}")


# The broker's own configuration may have pipelines too: this one for a repository that is built in a container.
CONTAINER_PIPELINE = """
[[repository]]
name = "acme/boxed"
forge = "github"
url = "{bare}"
api = "{api}"
statuses = false

[[repository.pipeline]]
name = "boxed"
on = ["manual"]
container = {{ image = "localhost/story:latest", network = "none" }}
run = "echo in a container with $(ls /bin | wc -l) programs; ls /bin"
"""


class Podman:
    """An engine with its own storage, and an image with nothing but busybox."""

    IMAGE = "localhost/story:latest"
    # For machines without systemd, and without the rights that an ordinary one gives root.
    CONFIG = """
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""

    def __init__(self, folder):
        self.folder = folder / "podman"
        self.socket = self.folder / "socket"
        self.service = None
        missing = [program for program in ["podman", "runc", "busybox"] if not shutil.which(program)]
        self.trouble = f"there is no {missing[0]}" if missing else self.begin()

    def command(self, *args):
        storage = ["--root", self.folder / "storage", "--runroot", self.folder / "run", "--storage-driver", "vfs"]
        return ["podman", *storage, *args]

    def begin(self):
        """Answers what is in the way, if anything is: not every machine lets Podman run containers."""
        image = self.folder / "image" / "bin"
        image.mkdir(parents=True)
        shutil.copy(shutil.which("busybox"), image / "busybox")
        for program in ["cat", "echo", "ls", "sh", "wc"]:
            (image / program).symlink_to("busybox")
        (self.folder / "containers.conf").write_text(self.CONFIG)
        self.environment = {**os.environ, "CONTAINERS_CONF": str(self.folder / "containers.conf")}
        archive = shutil.make_archive(str(self.folder / "image"), "tar", image.parent)
        for args in [["import", archive, self.IMAGE], ["run", "--rm", "--network", "none", self.IMAGE, "sh", "-c", ":"]]:
            done = subprocess.run(self.command(*args), env=self.environment, capture_output=True, text=True)
            if done.returncode != 0:
                return done.stderr.strip()
        args = self.command("system", "service", "--time=0", f"unix://{self.socket}")
        self.service = subprocess.Popen(args, env=self.environment)
        until("podman listens", self.socket.exists)
        return None

    def stop(self):
        if self.service:
            self.service.terminate()
            self.service.wait()


def container(broker, podman):
    chapter("A build in a container")
    if podman.trouble:
        say(f"  skipped, as Podman runs no container here: {podman.trouble}")
        return
    number = json.loads(broker.types("alice", "build", "start", "acme/boxed", "--json"))["builds"][0]
    log = broker.follow(number)
    broker.comes_to_be(number, "passed")
    log.join(PATIENCE_S)


def main():
    expect(os.access(LEASEHOLD, os.X_OK), f"there is a program {LEASEHOLD}: cargo build makes it")
    with tempfile.TemporaryDirectory(prefix="leasehold-story-") as name:
        folder = pathlib.Path(name)
        forge = Forge()
        repository = Repository(folder)
        podman = Podman(folder)
        running = [podman]
        try:
            broker = Broker(folder, forge, repository, boxed=not podman.trouble)
            running.append(broker)
            socket = [] if podman.trouble else ["--container-socket", f"unix://{podman.socket}"]
            lock = {"LEASEHOLD_URL": f"ws://{broker.authority}", "PHONE_LOCK": str(folder / "phone.lock")}
            args = ["agent", "--name", "bench", "--slots", "2", "--work", "work", "--env-pass", "PHONE_LOCK", *socket]
            agent = Program(folder, "agent", args, **lock)
            running.append(agent)
            say(f"A broker at {broker.url}, its agent, and a lab with one phone.")
            opened(forge, broker, repository)
            superseded(forge, broker, repository)
            fork(forge, broker, repository)
            container(broker, podman)
        except BaseException:
            for program in running:
                if isinstance(program, Program):
                    say(f"--- what the {program.name} said:\n{program.said()}---")
            raise
        finally:
            for program in reversed(running):
                program.stop()
    say("\nAll went as told.")


if __name__ == "__main__":
    sys.exit(main())
