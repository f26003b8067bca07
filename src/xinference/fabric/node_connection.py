"""One connection of a node: sends its state, answers the calls that come, and sends its events."""

from __future__ import annotations

import asyncio
import logging

import msgspec

from xinference.fabric.fabric import NodeProgram
from xinference.fabric.frames import Answer, Call, Failure, FrameError, NodeEvent, Table, Tell, read_frame, write_frame
from xinference.task_set import TaskSet

log = logging.getLogger(__name__)
#: Maximum time for the answer to a call, in seconds; no supervisor gives more than some minutes.
MAX_ANSWER_SECONDS = 24 * 3600.0
_DECODER = msgspec.msgpack.Decoder(Call | Tell | Table)


class NodeConnection:
    """A connection to the supervisor, direct or through a relay."""

    def __init__(self, program: NodeProgram, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._program = program
        self._reader = reader
        self._writer = writer
        self._sent = 0
        self._answers = TaskSet()

    async def serve(self) -> None:
        """Send the state, then answer calls until the connection ends."""
        self.send_event(self._program.state())
        try:
            while (message := await read_frame(self._reader, _DECODER)) is not None:
                if isinstance(message, Call):
                    self._answers.start(self._answer(message))
                elif isinstance(message, Tell):
                    self._program.receive(message.body)
                else:
                    self._program.receive_table(message.body)
        except FrameError as error:
            log.warning("the other end sent what is no message: %s", error)
        finally:
            self._answers.cancel()

    def send_event(self, body: bytes) -> None:
        """Send an event of the node."""
        self._sent += 1
        self._write(NodeEvent("", self._sent, body))

    def close(self) -> None:
        """Close the connection."""
        self._writer.close()

    async def _answer(self, call: Call) -> None:
        if not 0 <= call.seconds <= MAX_ANSWER_SECONDS:  # also if it is no number
            text = f"the call {call.number} has the time {call.seconds} s, and not 0 to {MAX_ANSWER_SECONDS:g} s"
            log.warning("%s: it is refused", text)
            self._write(Failure(call.number, "refused", text))
            return
        try:
            async with asyncio.timeout(call.seconds):
                answer = await self._program.answer(call.body)
        except TimeoutError:
            self._write(Failure(call.number, "timeout"))
        else:
            self._write(Answer(call.number, answer))

    def _write(self, message: Answer | Failure | NodeEvent) -> None:
        write_frame(self._writer, message)
