"""What a replay did: for people, and as JSON."""

import msgspec

from streamer.wording import amounts, counted

FEW_ROUNDS, SMALL_ROUNDS = 2, 10
"""The first round ranks nothing: of up to FEW_ROUNDS it may be the size that is wrong."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    records: int
    clicks: int
    """Clicks that count."""
    dead_letters: int
    left_out: int
    """Clicks that were sent twice, of bots, or of types that weigh 0."""
    late: int
    """Clicks dated more than session.gap before others that came before them."""
    rounds: int
    items: int
    arcs: int
    published: int
    """Vectors, counted each time that one was published."""
    seconds: float
    records_per_second: float
    stages: dict[str, float]
    """Share of the time spent in each stage, `other` included."""
    transitions: int
    """Next items that were ranked before they were learned."""
    hit_rates: dict[str, float]
    """Share of them that were among the first 20, by ranker; empty if there were none."""

    def lines(self) -> list[str]:
        """The report in words."""
        made = amounts(item=self.items, arc=self.arcs)
        out = [
            f"{counted(self.clicks, 'click')} of {counted(self.records, 'record')} in "
            f"{self.seconds:.1f} s ({self.records_per_second:,.0f}/s), "
            f"{counted(self.dead_letters, 'dead letter')}, {self.left_out:,} left out (sent twice, "
            "of bots, or of types that weigh 0)",
            f"{made}, {counted(self.published, 'vector')} published, "
            f"{counted(self.rounds, 'round')}",
            f"time: {', '.join(f'{stage} {share:.0%}' for stage, share in self.stages.items())}",
        ]
        if self.hit_rates:
            rates = ", ".join(f"{ranker} {rate:.3f}" for ranker, rate in self.hit_rates.items())
            ranked = counted(self.transitions, "transition")
            out.append(f"next item in the first 20, of {ranked}: {rates}")
        return out

    def why_unranked(self) -> str:
        """Why no transition was ranked."""
        if self.rounds > FEW_ROUNDS:
            return "no user went on from one item, learned before, to another within session.gap"
        return (
            f"too few rounds ({self.rounds}) to rank clicks before they are learned; try "
            f"--set round.max_events={max(1, self.records // SMALL_ROUNDS)}"
        )
