"""The LAN's side of a tunnel: its segment, and what moves and watches frames on it.

It knows nothing of the WebSocket that the tunnel is used through: `send` is all there is of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from aero_l2.observe.metrics import Metrics
from aero_l2.session.capturing import TunnelCapture
from aero_l2.session.connecting import ConnectWatch
from aero_l2.session.options import TunnelOptions
from aero_l2.session.ports import Segment
from aero_l2.session.pump import Admit, Pump
from aero_l2.session.record import Record
from aero_l2.wire.framing import Framing


class Lan:
    """Frames of one tunnel between `start` and `stop`.

    capture: of these frames, while there is one.

    Args:
        record: what is said of the tunnel.
        segment: stands, and stands longer than this.
        framing: how the client gets its frames.
        lost: told once, in words, when the segment is lost.
        nat_ready: told when the NAT process is there, if it was not at the start.
        admit, refused: see `Pump`.
    """

    def __init__(
        self,
        record: Record,
        segment: Segment,
        framing: Framing,
        options: TunnelOptions,
        metrics: Metrics,
        *,
        lost: Callable[[str], None],
        nat_ready: Callable[[], None],
        admit: Admit | None = None,
        refused: Callable[[], None] = lambda: None,
    ) -> None:
        self._segment = segment
        self._lost = lost
        self._told_ready = nat_ready
        self.pump = Pump(
            segment.tap,
            prefixes=framing.prefixes,
            failed=lost,
            metrics=metrics,
            rate=options.packet_rate(),
            admit=admit,
            refused=refused,
            delivered=lambda frames: self._connects.to_guest(frames),
        )
        self.capture = TunnelCapture(options.captures, self.pump, record)
        self._connects = ConnectWatch(options.connect_timeout_s, self.pump, metrics)

    @property
    def is_nat_ready(self) -> bool:
        """Whether packets reach the NAT process already."""
        return self._segment.nat_ready.done()

    def start(self, send: Callable[[bytes], None]) -> None:
        """Let frames flow; `send` takes the bytes of batches of messages."""
        self._segment.failed.add_done_callback(self._on_failed)
        if not self.is_nat_ready:
            self.pump.hold_early()
            self._segment.nat_ready.add_done_callback(self._on_nat_ready)
        self.pump.send = send
        self.capture.tunnel_opened()
        try:
            self.pump.start()
        except OSError as failure:
            self._lost(f"the TAP cannot be watched: {failure.strerror}")

    def from_client(self, frames: Sequence[bytes]) -> None:
        """The frames of one read."""
        self._connects.from_guest(frames)
        self.pump.to_tap(frames)

    def stop(self) -> None:
        """Touch the segment no more; idempotent."""
        self._connects.close()
        self.pump.stop()
        self.capture.tunnel_closed()
        self._segment.failed.remove_done_callback(self._on_failed)
        self._segment.nat_ready.remove_done_callback(self._on_nat_ready)

    def _on_failed(self, failed: asyncio.Future[str]) -> None:
        if not failed.cancelled():
            failure = failed.exception()
            self._lost(failed.result() if failure is None else str(failure))

    def _on_nat_ready(self, _: asyncio.Future[None]) -> None:
        self.pump.release_early()
        self._told_ready()
