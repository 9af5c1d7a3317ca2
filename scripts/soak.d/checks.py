"""What is checked again and again while a soak runs."""

import asyncio
import os
import re
import statistics
import time
from pathlib import Path

from http_client import Broken, must_be_healthy
from service import descendants, stat

GROWTH = 4 << 20  # bytes that a launcher may have more at the end: buffers and caches of the allocator
DESCRIPTORS = 3  # and descriptors, between two looks, because a client of the control socket may be connected


def memory(pid):
    """Bytes that are a process's own, and not of files."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"^RssAnon:\s+(\d+)", text, re.M)[1]) << 10


class Sample:
    """A launcher at a moment at which nothing happens."""

    def __init__(self, service, generation):
        self.at, self.server = time.monotonic(), generation["server"]
        self.workers = len(generation["workers"])
        self.descriptors = len(os.listdir(f"/proc/{service.pid}/fd"))
        self.memory = memory(service.pid)
        self.threads = len(os.listdir(f"/proc/{service.pid}/task"))
        self.processes = len(descendants(service.pid))
        self.files = service.files()

    def key(self):
        return self.server, self.workers


class Leaks:
    """Compares a launcher with itself, each time that it is at rest."""

    def __init__(self, service, outcomes):
        self.service, self.outcomes = service, outcomes
        self.first, self.samples = {}, []

    async def look(self, generation, after):
        await self.no_zombies(after)
        first = self.first.get((generation["server"], len(generation["workers"])))
        sample = Sample(self.service, generation)
        # A generation that has just gone still has descriptors for a moment.
        deadline = time.monotonic() + 10
        while first and (worse := self.differences(first, sample)) and time.monotonic() < deadline:
            await asyncio.sleep(0.5)
            sample = Sample(self.service, generation)
        if first is None:
            self.first[sample.key()] = sample
        elif worse:
            self.outcomes.find(f"after {after}: {'; '.join(worse)}")
        self.samples.append(sample)

    @staticmethod
    def differences(first, now):
        found = []
        if now.descriptors > first.descriptors + DESCRIPTORS:
            found.append(f"{now.descriptors} descriptors, {first.descriptors} at first")
        if now.threads > first.threads + 1:
            found.append(f"{now.threads} threads, {first.threads} at first")
        if now.processes != first.processes:
            found.append(f"{now.processes} processes, {first.processes} at first")
        if set(now.files) - set(first.files):
            found.append(f"new files: {sorted(set(now.files) - set(first.files))}")
        return found

    async def no_zombies(self, after):
        seen = {}
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline:
            states = {pid: stat(pid) for pid in descendants(self.service.pid)}
            seen = {pid for pid, found in states.items() if found and found[0] == "Z"}
            if not seen:
                return
            await asyncio.sleep(0.1)
        self.outcomes.find(f"after {after}: zombies: {sorted(seen)}")

    def growth(self):
        """Bytes that the launcher has at the end more than at the beginning, as medians of a third of the looks."""
        third = max(len(self.samples) // 3, 1)
        first, last = self.samples[:third], self.samples[-third:]
        median = lambda samples: statistics.median(sample.memory for sample in samples)
        return int(median(last) - median(first)) if self.samples else 0

    def judge(self):
        if len(self.samples) >= 6 and self.growth() > GROWTH:
            self.outcomes.find(f"the launcher has grown by {self.growth() >> 10} KiB")


class Readiness:
    """Ready means that a client that comes now is answered; and without a fault it is always ready."""

    def __init__(self, service, target, outcomes):
        self.service, self.target, self.outcomes = service, target, outcomes
        self.disturbed = False
        self.checks = 0

    async def watch(self):
        while True:
            await asyncio.sleep(0.5)
            undisturbed = not self.disturbed
            answer = await self.service.ask({"request": "ready"})
            if answer and answer["ready"]:
                await self.must_answer()
            elif undisturbed and not self.disturbed:
                self.outcomes.find(f"not ready, and nothing has happened: {answer}")

    async def must_answer(self):
        opened = asyncio.get_running_loop().time()
        try:
            await must_be_healthy(self.target)
            self.checks += 1
        except Broken as error:
            self.outcomes.bad("it said that it is ready", opened, str(error))
