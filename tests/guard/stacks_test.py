"""What a worker tells about its threads, tasks and open requests, without a server."""

import asyncio
import faulthandler
import json
import os
import signal
import struct
import threading
import unittest

from guard_test import SLOTS, Client, GuardTestCase, guard

PYTHON, ALL, MAIN = 52, 53, 54
FIRST, AREA, ANSWER, DUMP = 1 << 16, 1 << 24, 4096, 1 << 20


class StacksTest(GuardTestCase):
    def setUp(self):
        super().setUp()
        self.memory = os.memfd_create("stacks")
        os.ftruncate(self.memory, FIRST + SLOTS * AREA)
        os.pwrite(self.memory, struct.pack("=8sI", b"MCPLSTK1", 1), 0)

    def tearDown(self):
        super().tearDown()
        faulthandler.unregister(ALL)
        faulthandler.unregister(MAIN)
        signal.signal(PYTHON, signal.SIG_DFL)
        os.close(self.memory)

    def guard(self, app, **constants):
        return guard(app, BOARD=self.board, STACKS=(self.memory, PYTHON, ALL, MAIN), LIMIT=None, **constants).app

    async def ask(self, number):
        """The interpreter's answer to a question."""
        os.pwrite(self.memory, struct.pack("=I", number), FIRST + 4)
        for _ in range(1000):
            answered, length = struct.unpack("=II", os.pread(self.memory, 8, FIRST + 8))
            if answered == number:
                return json.loads(os.pread(self.memory, length, FIRST + ANSWER))
            await asyncio.sleep(0.005)
        raise AssertionError("no answer")

    async def open(self, app, count, path="/", **scope):
        self.clients = [Client(app, path, **scope).start() for _ in range(count)]
        await asyncio.sleep(0.02)
        self.addAsyncCleanup(self.close)

    async def close(self):
        for client in self.clients:
            client.cancel()
        await asyncio.gather(*self.clients, return_exceptions=True)

    async def test_open_requests_tasks_and_threads_are_told_and_no_values(self):
        async def waits(password):
            await asyncio.gather(asyncio.sleep(60), asyncio.create_task(asyncio.Event().wait(), name="b" * 40 + "1"))

        async def app(scope, receive, send):
            await waits(scope["query_string"] + b"hunter2")

        await self.open(self.guard(app), 1, "/reset/0123456789abcdef01", query_string=b"token=secret")
        told = await self.ask(7)
        [request] = told["requests"]
        self.assertEqual((request["method"], request["path"]), ("GET", "/reset/..."))
        self.assertTrue(0 < request["age_seconds"] < 30, request)
        stacks = {name: stack for stack in told["stacks"] for name in stack["names"]}
        stack = stacks[request["task"]]
        self.assertEqual(stack["frames"][-1]["function"].split(".")[-1], "waits")
        self.assertEqual(stack["frames"][-1]["file"], __file__)
        self.assertEqual(len(stack["waits_for"]), 2)
        self.assertIn("...", stacks)
        self.assertIn("MainThread", told["names"].values())
        self.assertEqual(struct.unpack("=I", os.pread(self.memory, 4, FIRST)), (os.getpid(),))
        os.kill(os.getpid(), ALL)
        dump = os.pread(self.memory, 100_000, FIRST + DUMP).rstrip(b"\0").decode()
        self.assertRegex(dump, r'^(Current t|T)hread 0x[0-9a-f]+ .*\(most recent call first\):\n  File "')
        for text in (json.dumps(told), dump):
            self.assertNotIn("hunter2", text)
            self.assertNotIn("secret", text)

    async def test_the_interpreter_writes_the_threads_once_for_each_question_the_main_thread_last(self):
        async def app(scope, receive, send):
            pass

        await Client(self.guard(app)).call
        waiting = threading.Event()
        thread = threading.Thread(target=waiting.wait, name="waits")
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(waiting.set)
        os.pwrite(self.memory, struct.pack("=I", 5), FIRST + 4)

        def interrupted():
            os.kill(os.getpid(), PYTHON)
            os.kill(os.getpid(), PYTHON)
            return os.pread(self.memory, 100_000, FIRST + DUMP).rstrip(b"\0").decode()

        dump = interrupted()
        heads = [line for line in dump.splitlines() if not line.startswith("  ")]
        main = "Current thread 0x%016x (most recent call first):" % threading.main_thread().ident
        self.assertIn("Thread 0x%016x (most recent call first):" % thread.ident, heads)
        self.assertEqual((heads[-1], heads.count(main)), (main, 1))
        self.assertRegex(dump.split(main)[1].splitlines()[1], r'^  File ".*stacks_test.py", line \d+ in interrupted$')
        self.assertEqual(struct.unpack("=I", os.pread(self.memory, 4, FIRST + 24)), (5,))

    async def test_a_dump_is_written_to_the_beginning_again_once_a_question_was_answered(self):
        async def app(scope, receive, send):
            pass

        await Client(self.guard(app)).call
        os.kill(os.getpid(), ALL)
        end = len(os.pread(self.memory, 100_000, FIRST + DUMP).rstrip(b"\0"))
        os.pwrite(self.memory, bytes(end), FIRST + DUMP)
        os.pwrite(self.memory, struct.pack("=I", end), FIRST + 16)
        await self.ask(1)
        for _ in range(1000):
            if os.pread(self.memory, 4, FIRST + 16) == bytes(4):
                break
            await asyncio.sleep(0.005)
        os.kill(os.getpid(), ALL)
        self.assertNotEqual(os.pread(self.memory, 1, FIRST + DUMP), b"\0")

    async def test_however_deep_a_stack_is_the_answer_is_bounded_and_says_what_is_missing(self):
        async def deep(levels):
            await (deep(levels - 1) if levels else asyncio.sleep(60))

        async def app(scope, receive, send):
            await deep(500)

        await self.open(self.guard(app), 1)
        [stack] = [stack for stack in (await self.ask(1))["stacks"] if stack["left_out"]]
        self.assertEqual(len(stack["frames"]), 50)
        self.assertGreater(stack["left_out"], 400)

    async def test_however_many_requests_there_are_the_answer_is_bounded_and_says_what_is_missing(self):
        async def many(scope, receive, send):
            await asyncio.sleep(60)

        await self.open(self.guard(many), 10_000)
        told = await self.ask(1)
        self.assertGreaterEqual(told["tasks"], 10_000)
        self.assertEqual(len(told["requests"]), 100)
        seen = 100 + told["requests_left_out"] + told.get("not_looked_at", 0)
        self.assertGreaterEqual(seen, 10_000)
        self.assertLess(len(json.dumps(told)), DUMP - ANSWER)

    async def test_a_signal_that_the_app_uses_is_left_to_it(self):
        came = []
        before = signal.signal(ALL, lambda *_: came.append(True))
        self.addCleanup(signal.signal, ALL, before)

        async def app(scope, receive, send):
            pass

        await Client(self.guard(app)).call
        taken = struct.unpack("=I", os.pread(self.memory, 4, FIRST + 20))
        self.assertEqual(taken, (5,), "only the others, so the launcher does not send it")
        os.kill(os.getpid(), ALL)
        self.assertTrue(came)
        self.assertEqual((await self.ask(1))["requests"], [])


if __name__ == "__main__":
    unittest.main(argv=["stacks_test"])
