"""The table of the benchmarks: what is better, and what an aim asks for."""

from benchmarks.report import Aim, Measure, table


def lines(measure: Measure) -> list[str]:
    return [line for line in table([measure]).splitlines() if line.startswith("| ")][1:]


def test_the_least_is_the_best_of_what_costs():
    measure = Measure("cost", "ms", aims={"ours": Aim(10), "peer": Aim(1.1), "slow": Aim(3, cheaper=True)})
    for name, rounds in {"ours": [9, 8], "peer": [8, 7], "slow": [20, 30]}.items():
        for value in rounds:
            measure.add(name, value)
    assert lines(measure) == [
        "| cost | ours | 8.00 ms | 8.50 |  | ≤ 10 ms ✓ |",
        "|  | peer | 7.00 ms | 7.50 | 1.14 | ≤ 1.1 x ✗ |",
        "|  | slow | 20.0 ms | 25.0 | 0.40 (2.5 x cheaper) | ≥ 3 x cheaper ✗ |",
    ]


def test_the_most_is_the_best_of_what_is_wanted():
    least = {"ours": Aim(0.99, at_least=True), "peer": Aim(1, at_least=True)}
    measure = Measure("found", "", aims=least, more_is_better=True)
    for name, rounds in {"ours": [0.9895, 0.5], "peer": [0.2, 0.25]}.items():
        for value in rounds:
            measure.add(name, value)
    assert lines(measure) == [
        "| found | ours | 0.9895 | 0.7448 |  | ≥ 0.99 ✗ |",
        "|  | peer | 0.2500 | 0.2250 | 3.96 | ≥ 1 x ✓ |",
    ]
