"""The first sentence of the report in every case that can occur, spelled out: read each for plain English."""

import math

import pytest

from carryover.bench.analyses.parts.answer_updates import over_updates
from carryover.bench.analyses.parts.answer_words import Case, Gain, Judged, sentence

NAN = math.nan
CARRIES, HURTS, NO_BETTER, CANNOT_TELL = "carries over", "hurts", "no better than zero-shot", "cannot tell"


def gain(points, low, high, verdict):
    return Gain(points, low, high, verdict)


def up(points=13.1):
    return gain(points, points - 0.8, points + 0.8, CARRIES)


def down(points=-5.0):
    return gain(points, points - 0.8, points + 0.8, HURTS)


LEVEL = gain(0.1, -0.5, 0.7, NO_BETTER)
WIDE = gain(0.8, -2.0, 3.6, CANNOT_TELL)
ABSENT = gain(NAN, NAN, NAN, CANNOT_TELL)
REFUSED = gain(NAN, NAN, NAN, "not possible")


def method(name, place, own, ported=None, seeds=3):
    return Judged(name, place, seeds, own, ported)


def case(*methods, zero=59.46, datasets=11, done=99, **more):
    return Case(methods, zero, datasets=datasets, done=done, **more)


def one_seed(name, place, points):
    return method(name, place, gain(points, NAN, NAN, CANNOT_TELL), seeds=1)


INPUT = [method(name, "input", up()) for name in ("CoOp", "CoCoOp", "KgCoOp", "ContCoOp")]
OUTPUT = [method(name, "output", down()) for name in ("Linear Probe", "CLIP-Adapter", "RAda", "TaskRes")]
TIP = method("Tip-Adapter-F", "output", LEVEL)


def refused(methods):
    return [method(one.name, one.place, REFUSED, one.ported, seeds=0) for one in methods]


def with_port(methods, *gains):
    return [Judged(m.name, m.place, m.seeds, m.gain, g) for m, g in zip(methods, gains, strict=True)]


SENTENCES = {
    "as on micro": (
        case(*with_port(INPUT, up(), None, up(), up()), *with_port([*OUTPUT, TIP], *[up()] * 5)),
        "All four input-token methods carry over: on the new model they beat zero-shot. None of the five output-space "
        "methods carries over: four hurt and one is no better than zero-shot. Ported through a map, all eight methods "
        "that have a port beat zero-shot.",
    ),
    "without ports": (
        case(*INPUT, *OUTPUT, TIP),
        "All four input-token methods carry over: on the new model they beat zero-shot. None of the five output-space "
        "methods carries over: four hurt and one is no better than zero-shot.",
    ),
    "some of a place": (
        case(*INPUT[:2], method("KgCoOp", "input", down()), method("ContCoOp", "input", WIDE)),
        "Two of the four input-token methods carry over: on the new model CoOp and CoCoOp beat zero-shot, one hurts "
        "and one is inconclusive.",
    ),
    "one of a place": (
        case(INPUT[0], method("KgCoOp", "input", LEVEL), method("ContCoOp", "input", LEVEL)),
        "One of the three input-token methods carries over: on the new model CoOp beats zero-shot and two are no "
        "better than zero-shot.",
    ),
    "many of a place": (
        case(*INPUT, method("A", "input", down()), method("B", "input", down())),
        "Four of the six input-token methods carry over: on the new model they beat zero-shot; two hurt.",
    ),
    "every place": (
        case(
            method("TPT", "none", LEVEL), *INPUT[:2], method("Deep", "inner", down()), *OUTPUT[:2],
            method("MaPLe", "towers", WIDE), method("CLIP-LoRA", "towers", WIDE),
        ),
        "TPT is no better than zero-shot on the new model. Both input-token methods carry over. Deep hurts. Neither of "
        "the two output-space methods carries over: both hurt. We cannot tell whether the two both-tower methods carry "
        "over.",
    ),
    "nothing is known to carry over": (
        case(*OUTPUT[:3], method("RAda", "output", WIDE), method("TaskRes", "output", WIDE)),
        "Of the five output-space methods, on the new model three hurt and two are inconclusive.",
    ),
    "nothing carries over": (
        case(*OUTPUT),
        "None of the four output-space methods carries over: on the new model all four hurt.",
    ),
    "one of each of two places": (
        case(INPUT[0], OUTPUT[0]),
        "CoOp carries over: on the new model it beats zero-shot. Linear Probe hurts.",
    ),
    "the first place hurts": (
        case(method("CoOp", "input", down()), method("TaskRes", "output", up())),
        "CoOp hurts on the new model. TaskRes carries over.",
    ),
    "inconclusive, then level": (
        case(method("CoOp", "input", WIDE), TIP),
        "We cannot tell whether CoOp carries over to the new model. Tip-Adapter-F is no better than zero-shot.",
    ),
    "level, then inconclusive": (
        case(method("CoOp", "input", LEVEL), method("TaskRes", "output", WIDE)),
        "CoOp is no better than zero-shot on the new model. We cannot tell whether TaskRes carries over.",
    ),
    "several, one port": (
        case(*INPUT[:2], *with_port(OUTPUT[:1], LEVEL)),
        "Both input-token methods carry over: on the new model they beat zero-shot. Linear Probe hurts. Ported through "
        "a map, Linear Probe is no better than zero-shot.",
    ),
    "several, some ports": (
        case(*with_port(OUTPUT, up(), up(), down(), WIDE)),
        "None of the four output-space methods carries over: on the new model all four hurt. Ported through a map, two "
        "of the four methods that have a port beat zero-shot.",
    ),
    "several, one good port": (
        case(*with_port(OUTPUT[:3], up(), down(), WIDE)),
        "None of the three output-space methods carries over: on the new model all three hurt. Ported through a map, "
        "one of the three methods that have a port beats zero-shot.",
    ),
    "several, no good port": (
        case(*with_port(OUTPUT[:2], down(), down())),
        "Neither of the two output-space methods carries over: on the new model both hurt. Ported through a map, "
        "neither of the two methods that have a port significantly beats zero-shot.",
    ),
    "one method carries over": (
        case(INPUT[0]),
        "CoOp carries over: on the new model it is 13.1 points above zero-shot (95 % interval +12.3 to +13.9).",
    ),
    "one method hurts, and is ported": (
        case(method("Linear Probe", "output", down(-51.2), up(12.6))),
        "Linear Probe hurts: on the new model it is 51.2 points below zero-shot (95 % interval -52.0 to -50.4). Ported "
        "through a map, it is 12.6 points above zero-shot (95 % interval +11.8 to +13.4).",
    ),
    "one method is level": (
        case(TIP),
        "Tip-Adapter-F is no better than zero-shot on the new model: it is 0.1 points above zero-shot (95 % interval "
        "-0.5 to +0.7).",
    ),
    "one method that gains nothing at all": (
        case(method("Fine-tuning", "towers", gain(-0.04, -0.3, 0.2, NO_BETTER))),
        "Fine-tuning is no better than zero-shot on the new model: it is level with zero-shot (95 % interval -0.3 to "
        "+0.2).",
    ),
    "one method cannot be judged": (
        case(method("CoOp", "input", WIDE)),
        "We cannot tell whether CoOp carries over: on the new model it is 0.8 points above zero-shot (95 % interval "
        "-2.0 to +3.6).",
    ),
    "one method of several has finished": (
        case(INPUT[0], method("TPT", "input", ABSENT, seeds=0)),
        "CoOp carries over: on the new model it is 13.1 points above zero-shot (95 % interval +12.3 to +13.9).",
    ),
    "one method on one dataset": (
        case(method("CoOp", "input", gain(1.0, 0.2, 1.8, CARRIES)), datasets=1),
        "CoOp carries over: on the new model it is 1.0 point above zero-shot (95 % interval +0.2 to +1.8).",
    ),
    "another update": (
        case(*INPUT[:2], where="the update 'laion'"),
        "Both input-token methods carry over: on the update 'laion' they beat zero-shot.",
    ),
    "one seed, several methods": (
        case(one_seed("CoOp", "input", 12.0), one_seed("KgCoOp", "input", 6.0), one_seed("RAda", "output", -2.0)),
        "One seed allows no verdict. In these runs CoOp and KgCoOp are above zero-shot on the new model and RAda is "
        "not.",
    ),
    "one seed, many methods": (
        case(*[one_seed(f"M{i}", "input", 12.0) for i in range(4)], one_seed("RAda", "output", -2.0)),
        "One seed allows no verdict. In these runs four methods are above zero-shot on the new model and RAda is not.",
    ),
    "one seed, all above": (
        case(one_seed("CoOp", "input", 12.0), one_seed("KgCoOp", "input", 6.0)),
        "One seed allows no verdict. In these runs CoOp and KgCoOp are above zero-shot on the new model.",
    ),
    "one seed, none above": (
        case(one_seed("TaskRes", "output", -2.0), one_seed("RAda", "output", 0.0)),
        "One seed allows no verdict. In these runs TaskRes and RAda are not above zero-shot on the new model.",
    ),
    "one seed, one method above": (
        case(one_seed("CoOp", "input", 12.0)),
        "One seed allows no verdict. In this run CoOp is 12.0 points above zero-shot on the new model.",
    ),
    "one seed, one method below": (
        case(one_seed("TaskRes", "output", -2.0)),
        "One seed allows no verdict. In this run TaskRes is 2.0 points below zero-shot on the new model.",
    ),
    "one seed, one cannot be plugged in": (
        case(one_seed("CoOp", "input", 12.0), *refused(OUTPUT[:1])),
        "One seed allows no verdict. In this run CoOp is 12.0 points above zero-shot on the new model. Linear Probe "
        "cannot be plugged in.",
    ),
    "predictions are gone": (
        case(method("CoOp", "input", gain(12.0, NAN, NAN, CANNOT_TELL))),
        "There is no verdict: the stored predictions are missing. In this run CoOp is 12.0 points above zero-shot on "
        "the new model.",
    ),
    "only zero-shot": (
        case(),
        "There is no verdict: only zero-shot was run. Its accuracy on the new model is 59.5 %.",
    ),
    "only zero-shot, not whole": (case(zero=NAN), "There is no verdict: only zero-shot was run."),
    "no zero-shot": (
        case(*INPUT, zero=NAN, has_zero_shot=False),
        "There is no verdict: zero-shot was not run, and methods are compared with it.",
    ),
    "zero-shot failed": (
        case(*INPUT, zero=NAN),
        "There is no verdict: zero-shot has not finished on every dataset, and methods are compared with it.",
    ),
    "nothing complete": (
        case(method("CoOp", "input", ABSENT, seeds=0)),
        "There is no verdict: no method has finished on all 11 datasets.",
    ),
    "nothing complete, one dataset": (
        case(method("CoOp", "input", ABSENT, seeds=0), datasets=1),
        "There is no verdict: no method has finished.",
    ),
    "some cannot be plugged in": (
        case(*refused(with_port(INPUT[:2], up(), LEVEL)), *with_port(OUTPUT, up(), up(), down(), WIDE)),
        "None of the four output-space methods carries over: on the new model all four hurt. CoOp and CoCoOp cannot be "
        "plugged in. Ported through a map, three of the six methods that have a port beat zero-shot.",
    ),
    "one of two cannot be plugged in": (
        case(*refused(INPUT[:1]), method("TPT", "none", LEVEL)),
        "TPT is no better than zero-shot on the new model: it is 0.1 points above zero-shot (95 % interval -0.5 to "
        "+0.7). CoOp cannot be plugged in.",
    ),
    "many cannot be plugged in": (
        case(*refused([*INPUT, *OUTPUT]), method("TPT", "none", LEVEL), TIP),
        "TPT is no better than zero-shot on the new model. Tip-Adapter-F is no better than zero-shot. Eight methods "
        "cannot be plugged in.",
    ),
    "none can be plugged in": (
        case(*refused(with_port(INPUT[:2], up(), up()))),
        "No method can be plugged into the new model, so there is no verdict. Ported through a map, both methods that "
        "have a port beat zero-shot.",
    ),
    "all failed": (case(*INPUT, done=0, failed=12, zero=NAN), "There is no verdict: all 12 runs failed."),
    "the only run failed": (case(done=0, failed=1, zero=NAN), "There is no verdict: the only run failed."),
    "nothing is stored": (case(done=0, zero=NAN), "There is no verdict: no run is stored."),
}  # fmt: skip


@pytest.mark.parametrize("name", SENTENCES)
def test_the_verdict_reads_as_it_is_spelled_out(name):
    given, expected = SENTENCES[name]
    assert sentence(given) == expected


# ---- several updates -------------------------------------------------------------------------------------------------

HELPED = with_port([*INPUT, *OUTPUT], *[up()] * 5, *[LEVEL] * 3)
NOT_HELPED = with_port(INPUT, *[LEVEL] * 4)
WORSE = [method(one.name, "input", down()) for one in INPUT]
UPDATES = {
    "as on micro": (
        {"new": case(*HELPED), "larger": case(*HELPED), "unrelated": case(*WORSE, *OUTPUT)},
        "All four input-token methods carry over to 'new' and 'larger', none to 'unrelated'. None of the four "
        "output-space methods carries over to any of the three updates. Ported through a map, five of the eight "
        "methods that have a port beat zero-shot on each update.",
    ),
    "all on all": (
        {"new": case(*INPUT), "second": case(*INPUT, zero=50.0, where="the update 'second'")},
        "All four input-token methods carry over to both updates.",
    ),
    "some": (
        {"new": case(*INPUT), "a": case(*INPUT[:2], *WORSE[2:]), "b": case(*WORSE), "c": case(INPUT[0], *WORSE[1:])},
        "All four input-token methods carry over to 'new', two to 'a', one to 'c', none to 'b'.",
    ),
    "none is shown to": (
        {"new": case(*WORSE), "second": case(*WORSE[1:], method("CoOp", "input", WIDE))},
        "None of the four input-token methods is shown to carry over to either update.",
    ),
    "one method": (
        {"new": case(INPUT[0]), "a": case(INPUT[0]), "b": case(WORSE[0])},
        "CoOp carries over to 'new' and 'a', not to 'b'.",
    ),
    "one method, nowhere": (
        {"new": case(WORSE[0]), "second": case(method("CoOp", "input", LEVEL))},
        "CoOp does not carry over to either update.",
    ),
    "many updates": (
        {**{str(i): case(*INPUT) for i in range(5)}, "x": case(*WORSE)},
        "All four input-token methods carry over to five of the six updates, none to 'x'.",
    ),
    "ports that depend on the update": (
        {"new": case(*HELPED), "second": case(*NOT_HELPED, *OUTPUT)},
        "All four input-token methods carry over to both updates. None of the four output-space methods carries over "
        "to either update. Ported through a map, none to five of the eight methods that have a port beat zero-shot, "
        "depending on the update.",
    ),
    "no port helps": (
        {"new": case(*NOT_HELPED), "second": case(*with_port(WORSE, *[LEVEL] * 4))},
        "All four input-token methods carry over to 'new', none to 'second'. Ported through a map, no method "
        "significantly beats zero-shot on any update.",
    ),
    "an update that refuses one place": (
        {"new": case(*INPUT, *OUTPUT), "wider": case(*INPUT, *refused(OUTPUT)), "b": case(*WORSE, *OUTPUT)},
        "All four input-token methods carry over to 'new' and 'wider', none to 'b'. None of the four output-space "
        "methods carries over to either update that takes them. Four of the eight methods cannot be plugged into "
        "'wider'.",
    ),
    "updates that refuse all": (
        {"new": case(*HELPED), "b": case(*HELPED), "siglip": case(*refused(HELPED)), "pe": case(*refused(HELPED))},
        "All four input-token methods carry over to both updates that take them. None of the four output-space methods "
        "carries over to either update that takes them. None of the eight methods can be plugged into 'siglip' and "
        "'pe'. Ported through a map, five of the eight methods that have a port beat zero-shot on each update.",
    ),
    "updates that refuse more and less": (
        {"new": case(*INPUT), "a": case(*INPUT[:3], *refused(INPUT[3:])), "b": case(*refused(INPUT))},
        "All four input-token methods carry over to 'new', three to 'a'. One of the four methods cannot be plugged "
        "into 'a'; none of the four methods can be plugged into 'b'.",
    ),
    "one update takes it": (
        {"new": case(INPUT[0]), "a": case(*refused(INPUT[:1]))},
        "CoOp carries over to the only update that takes it. The only method cannot be plugged into 'a'.",
    ),
    "all refuse all": (
        {"new": case(*refused(INPUT)), "a": case(*refused(INPUT), where="the update 'a'")},
        "No method can be plugged into the new model, so there is no verdict. No method can be plugged into the update "
        "'a', so there is no verdict.",
    ),
    "one seed": (
        {
            **{id: case(one_seed("CoOp", "input", -5.0), one_seed("RAda", "output", -1.0)) for id in ("new", "a", "b")},
            "c": case(one_seed("CoOp", "input", 5.0), one_seed("RAda", "output", -1.0), where="the update 'c'"),
            "d": case(one_seed("CoOp", "input", 5.0), *refused(OUTPUT[2:3])),
            "e": case(*refused(with_port([INPUT[0], OUTPUT[2]], up(), up()))),
        },
        "One seed allows no verdict. In these runs CoOp and RAda are not above zero-shot on 'new', 'a' and 'b'. In "
        "these runs CoOp is above zero-shot on 'c' and RAda is not. In this run CoOp is 5.0 points above zero-shot on "
        "'d'. One of the two methods cannot be plugged into 'd'; neither of the two methods can be plugged into 'e'.",
    ),
    "the same on each, without a verdict": (
        {"new": case(done=0, failed=12, zero=NAN), "second": case(done=0, failed=12, zero=NAN)},
        "There is no verdict: all 12 runs failed.",
    ),
    "one update lacks zero-shot": (
        {"new": case(*INPUT), "second": case(*INPUT, zero=NAN, where="the update 'second'")},
        "All four input-token methods carry over: on the new model they beat zero-shot. There is no verdict on the "
        "update 'second': zero-shot has not finished on every dataset, and methods are compared with it.",
    ),
}


@pytest.mark.parametrize("name", UPDATES)
def test_the_verdict_over_several_updates_reads_as_it_is_spelled_out(name):
    given, expected = UPDATES[name]
    assert over_updates(given) == expected
