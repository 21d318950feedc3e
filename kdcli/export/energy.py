"""What the processors have used up, from the counters that Linux keeps for them (RAPL)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")


@dataclass(frozen=True)
class EnergyMeter:
    """The counters of all sockets and of their memory.

    They count everything that the machine does, its idling too, and move about once a millisecond.

    Attributes:
        counters: files in microjoules.
        ranges: where each of them starts again at 0.
    """

    counters: tuple[Path, ...]
    ranges: tuple[int, ...]

    @classmethod
    def find(cls, folder: Path = POWERCAP) -> EnergyMeter | None:
        """The meter of this machine; None where there is none, or only the administrator may read it."""
        counters, ranges = [], []
        try:
            for zone in sorted(folder.glob("intel-rapl:*")):
                if _counts_by_itself((zone / "name").read_text(encoding="ascii")):
                    counters.append(zone / "energy_uj")
                    ranges.append(int((zone / "max_energy_range_uj").read_text(encoding="ascii")))
            meter = cls(tuple(counters), tuple(ranges))
            meter.read()
        except (OSError, ValueError):
            return None
        return meter if counters else None

    def read(self) -> list[int]:
        """Every counter as it stands."""
        return [int(counter.read_text(encoding="ascii")) for counter in self.counters]

    def joules(self, before: Sequence[int], after: Sequence[int]) -> float:
        """What was used between two readings; a counter that started again in between has done so once."""
        used = 0
        for start, end, full in zip(before, after, self.ranges, strict=True):
            used += end - start if end >= start else end + full - start
        return used / 1e6


def _counts_by_itself(name: str) -> bool:
    """Cores and graphics are counted in their package, and ``psys`` counts the packages again."""
    return name.startswith(("package", "dram"))
