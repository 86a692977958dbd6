"""An assessment as text: three tables and the notes."""

import textwrap

from sorl.assess.record import Assessment, Value
from sorl.assess.trust import distance_ratio


WIDTH = 110


def text(found: Assessment) -> str:
    """All of an assessment, for a terminal."""
    parts = [
        _title(found),
        "",
        *_values(found),
        "",
        *_distances(found),
        "",
        *_critics(found),
        "",
        "How far to trust it:",
    ]
    wrapped = [textwrap.fill(note, WIDTH, initial_indent="- ", subsequent_indent="  ") for note in found.notes]
    return "\n".join([*parts, *wrapped])


def _title(found: Assessment) -> str:
    policy, data = found.policy, found.data
    known = [f"{name} {value}" for name in ("member", "seed", "step") if (value := getattr(policy, name)) is not None]
    return (
        f"{', '.join([policy.algorithm, *known])} on {data.source} data: {data.episodes:,} episodes to fit on, "
        f"{data.held_out_episodes:,} held out; discount {data.discount:g} ({data.discount_from})"
    )


def _values(found: Assessment) -> list[str]:
    behaviour = found.behaviour
    lines = [
        f"Value at the first states of held-out episodes: fitted Q evaluation, {found.fit.updates:,} updates",
        f"{'':<12}{'value':>9}{'95 % interval':>22}{'in all states':>15}{'gain':>9}{'95 % interval':>22}"
        f"{'own Q':>10}{'too high by':>13}",
        f"{'returned':<12}{_number(behaviour.returned):>9}"
        f"{_range(behaviour.returned_low, behaviour.returned_high):>22}",
        f"{'behaviour':<12}{_value(behaviour.fitted)}",
    ]
    for one in found.budgets:
        gain = f"{_number(one.gain, '+'):>9}{_range(one.gain_low, one.gain_high):>22}"
        own = f"{_number(one.own_value):>10}{_number(one.over_estimation, '+'):>13}"
        lines.append(f"{one.budget.name:<12}{_value(one.fitted)}{gain}{own}")
    return lines


def _value(value: Value) -> str:
    interval = _range(value.value_low, value.value_high)
    return f"{_number(value.value):>9}{interval:>22}{_number(value.everywhere):>15}"


def _distances(found: Assessment) -> list[str]:
    behaviour = found.behaviour
    lines = [
        f"Distance to the data in {found.data.held_out_states:,} held-out states, in halves of the action range",
        f"{'':<12}{'energy score':>14}{'to neighbours':>15}{'x logged':>10}{'outside':>9}{'jerk':>8}{'x logged':>10}"
        "   to neighbours, by dimension",
        f"{'behaviour':<12}{'-':>14}{_mean(behaviour.neighbour_distance):>15.3f}{1:>10.2f}{'-':>9}"
        f"{behaviour.jerk:>8.3f}{1:>10.2f}   {_columns(behaviour.neighbour_distance)}",
    ]
    for one in found.budgets:
        jerk = f"{one.jerk / behaviour.jerk:.2f}" if behaviour.jerk > 0 else "-"
        lines.append(
            f"{one.budget.name:<12}{one.energy_score:>14.3f}{_mean(one.neighbour_distance):>15.3f}"
            f"{distance_ratio(found, one):>10.2f}{max(one.outside):>9.1%}{one.jerk:>8.3f}{jerk:>10}"
            f"   {_columns(one.neighbour_distance)}"
        )
    return lines


def _critics(found: Assessment) -> list[str]:
    head = f"{'critic':<24}{'rank correlation':>18}{'bias':>10}{'error':>10}{'heads deviate':>14}"
    lines = ["Critics' values of logged actions against the returns that followed", head]
    for one in found.calibrations:
        rank = "-" if one.rank_correlation is None else f"{one.rank_correlation:.2f}"
        figures = f"{_number(one.bias, '+'):>10}{_number(one.error):>10}{_number(one.disagreement):>14}"
        lines.append(f"{one.critic:<24}{rank:>18}{figures}")
    return lines


def _number(value: float | None, sign: str = "") -> str:
    return "-" if value is None else f"{value:{sign}.4g}"


def _range(low: float, high: float) -> str:
    return f"{low:.4g} .. {high:.4g}"


def _mean(values: tuple[float, ...]) -> float:
    return sum(values) / len(values)


def _columns(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.2f}" for value in values)
