"""Architectures as YAML: exact both ways, a stable key, and everything malformed or hostile refused with a reason."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import space
from space import Architecture, ArchitectureError, UserError, strict
from space.stage import Stage

ERFNET = space.load("erfnet").to_yaml()
KEYS = "expected the keys stem, stages, context, decoder, head, activation and 4 more"
LETTERS = st.characters(exclude_categories=["Cs"])  # all characters of UTF-8


def refusal(text: str, source: str = "net.yaml") -> str:
    """The message with which a document is refused, which is always one line."""
    with pytest.raises(UserError) as caught:
        Architecture.from_yaml(text, source=source)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(source)
    return message


@pytest.mark.parametrize("name", space.published())
def test_published_networks_survive_the_round_trip(name: str) -> None:
    architecture = space.load(name)
    again = Architecture.from_yaml(architecture.to_yaml())
    assert again == architecture
    assert (again.key, hash(again), again.to_yaml()) == (architecture.key, hash(architecture), architecture.to_yaml())


def test_random_architectures_survive_the_round_trip(random_architecture: Architecture) -> None:
    again = Architecture.from_yaml(random_architecture.to_yaml())
    assert again == random_architecture
    assert again.key == random_architecture.key


def test_a_pruned_architecture_survives_the_round_trip() -> None:
    pruned = replace(space.load("erfnet"), channels={"stage1.down.conv": 50, "stage0.down.conv": 40})
    again = Architecture.from_yaml(pruned.to_yaml())
    assert again == pruned
    assert again.channels == {"stage0.down.conv": 40, "stage1.down.conv": 50}


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("stride: 02", "YAML reads 02 as 2; write 2"),
        ("stride: 010", "YAML reads 010 as 8; write 10"),
        ("stride: 1:30", "YAML reads 1:30 as 90; write it as one number"),
        ('stride: "2"', "expected a whole number, got '2', which the quotes make text; write 2 without them"),
        ("stride: two", "expected a whole number, got 'two'"),
    ],
)
def test_numbers_that_yaml_reads_in_an_unexpected_way_are_refused(written: str, words: str) -> None:
    assert ERFNET.count("  stride: 2\n") >= 1
    assert refusal(ERFNET.replace("  stride: 2\n", f"  {written}\n", 1)).endswith(words)


def test_floats_that_yaml_reads_in_an_unexpected_way_are_refused() -> None:
    assert "YAML reads 00.5 as 0.5; write 0.5" in refusal(ERFNET.replace("norm_epsilon: 0.001", "norm_epsilon: 00.5"))
    assert "as 90.0" in refusal(ERFNET.replace("norm_epsilon: 0.001", "norm_epsilon: 1:30.0"))
    for text in ("0.001", "1e-3", "0.00_1"):
        assert Architecture.from_yaml(ERFNET.replace("0.001", text)).norm_epsilon == 0.001


def test_advice_to_leave_out_quotes_is_given_only_for_a_valid_value() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Answer:
        flag: bool

    with pytest.raises(UserError, match=r"expected true or false, got '1'$"):
        strict.parse('flag: "1"', Answer, "file")
    with pytest.raises(UserError, match="write true without them"):
        strict.parse('flag: "true"', Answer, "file")


def test_text_outside_utf8_is_not_written() -> None:
    with pytest.raises(UserError, match=r"expected text in UTF-8, got 'caf\\udce9'"):
        strict.dump({"root": "caf\udce9"})


def test_other_yaml_readers_understand_a_written_architecture() -> None:
    plain = yaml.safe_load(ERFNET)
    assert plain["stages"][1]["rates"] == [2, 4, 8, 16]
    assert plain["norm_epsilon"] == 0.001
    assert plain["context"] is None


def test_defaults_may_be_left_out_and_order_is_free() -> None:
    text = """
    norm_epsilon: 1e-3   # a comment, and a number that YAML 1.1 calls text
    activation: relu
    head: {kind: linear}
    decoder: null
    context: ~
    stages: [{width: 32, depth: 2, stride: 2, block: nonbt}]
    stem: {width: 8, kind: convs}
    levels: 1
    bias: false
    align_corners: false
    """
    read = Architecture.from_yaml(text)
    assert read.stages == (Stage(block="nonbt", width=32, depth=2, stride=2),)
    assert read.norm_epsilon == 0.001
    assert Architecture.from_yaml(read.to_yaml()).key == read.key


def laughs() -> str:
    lines = ["a0: &a0 [lol, lol]"]
    lines += [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}, *a{n - 1}, *a{n - 1}]" for n in range(1, 30)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (laughs(), ":1: anchors and aliases are not accepted"),
        (ERFNET.replace("stem:", "stem: &stem"), ":1: anchors and aliases"),
        (ERFNET + "more: *stem\n", "anchors and aliases"),
        ("!!python/object/apply:os.system ['true']", ":1: YAML tags are not accepted"),
        (ERFNET.replace("width: 16", "width: !!python/name:os.system ''"), ":3: YAML tags"),
        (ERFNET.replace("width: 16", "width: !!int '16'"), ":3: YAML tags"),
        ("[" * 500, ":1: the document is nested too deeply"),
        ("\n".join(" " * n + "a:" for n in range(200)), "nested too deeply"),
        ("stages:\n" + "- 1\n" * 60_000, "too many entries"),
        ("# " + "x" * 2_000_000, "expected a small YAML file"),
        ("", "empty document"),
        ("# nothing\n", "empty document"),
        ("null", f":1: {KEYS}, got 'null'"),
        ("- stem\n- stages\n", f":1: {KEYS}, got a list"),
        ("erfnet", f":1: {KEYS}, got 'erfnet'"),
        (ERFNET + "---\n" + ERFNET, "not valid YAML"),
        ("stem: {kind: cat", "not valid YAML"),
        ("stem:\n\tkind: cat", ":2: not valid YAML"),
        ("\x00\x01\x02", "not valid YAML"),
        ("? [a, b]\n: c\n", "expected a key, got a list"),
        ("<<: {stem: 1}\n", "unknown key '<<'"),
    ],
    ids=lambda value: repr(value[:24]),
)
def test_hostile_and_broken_documents_are_refused(text: str, reason: str) -> None:
    assert reason in refusal(text)


def test_nesting_too_deep_for_the_parser_is_refused() -> None:
    said = refusal("[" * 5000)
    ours, parsers = "the document is nested too deeply", "not valid YAML: exceeded maximum nesting depth"
    assert said.removeprefix("net.yaml:1: ").startswith((ours, parsers))  # libyaml 0.2.6 takes 1,000, older ones more


def line_of(text: str, fragment: str) -> int:
    return next(number for number, line in enumerate(text.splitlines(), 1) if fragment in line)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("stem:\n", "stemm:\n", ": unknown key 'stemm'; did you mean 'stem'?"),
        ("depth: 5", "depht: 5", ": stages[0]: unknown key 'depht'; did you mean 'depth'?"),
        ("align_corners: false", "zzz: 1", ": unknown key 'zzz'; known: activation, align_corners"),
        ("bias: true\n", "bias: true\nlevels: 1\n", "key 'levels' is given twice"),
        ("depth: 5", "depth: 5.0", ": stages[0].depth: expected a whole number, got '5.0'"),
        ("depth: 5", "depth: '5'", "depth: expected a whole number, got '5'"),
        ("depth: 5", "depth: true", "depth: expected a whole number, got 'true'"),
        ("depth: 5", "depth: [5]", "depth: expected a whole number, got a list"),
        ("depth: 5", "depth: {a: 5}", "depth: expected a whole number, got a mapping"),
        ("depth: 5", "depth: null", "depth: expected a whole number, got 'null'"),
        ("depth: 5", "depth: " + "9" * 5000, "depth: expected a whole number, got '999"),
        ("depth: 5", "depth: 99", "depth: expected 0 to 64, got 99"),
        ("bias: true", "bias: 1", ": bias: expected true or false, got '1'"),
        ("dropout: 0.03", "dropout: .nan", "dropout: expected a number, got '.nan'"),
        ("dropout: 0.03", "dropout: lots", "dropout: expected a number, got 'lots'"),
        ("dropout: 0.03", "dropout: -0.1", "dropout: expected 0.0 to 0.9, got -0.1"),
        ("rates: [2, 4, 8, 16]", "rates: 2", ": stages[1].rates: expected a list, got '2'"),
        ("rates: [2, 4, 8, 16]", "rates: 360x480", "expected a list, got '360x480'; write [360, 480]"),
        ("rates: [2, 4, 8, 16]", "rates: []", "rates: expected at least one"),
        ("rates: [2, 4, 8, 16]", "rates: [2, x]", ": stages[1].rates[1]: expected a whole number"),
        ("kind: deconv\n", "kind: decon\n", "got 'decon'; did you mean 'deconv'?"),
        ("  kind: deconv\n", "", "missing kind; give one of deconv, cat, ladder"),
        ("activation: relu", "activation: reul", "got 'reul'; did you mean 'relu'?"),
        ("activation: relu\n", "", ": missing activation"),
        ("  width: 64\n", "  width: 8\n", "stages[0].width: cat adds to the 16 channels of its input"),
        ("channels: {}", "channels: {stem.cnov: 3}", "no group is called 'stem.cnov'; did you mean 'stem.conv'?"),
        ("channels: {}", "channels: {stem.conv: 14}", "expected 1 to 13 channels in 'stem.conv', got 14"),
        ("channels: {}", "channels: [1]", "channels: expected a mapping, got a list"),
    ],
    ids=lambda value: repr(value[:30]),
)
def test_a_wrong_value_is_named_with_its_line(old: str, new: str, reason: str) -> None:
    text = ERFNET.replace(old, new, 1)
    assert text != ERFNET
    message = refusal(text)
    assert reason in message
    line = int(message.split(":")[1])
    assert 1 <= line <= len(text.splitlines())
    key = new.split(":")[0].strip()
    if new and "unknown key" in reason:
        assert line == line_of(text, key)


@settings(max_examples=150, deadline=None)
@given(st.text(LETTERS, max_size=200))
def test_random_texts_are_refused_without_a_crash(text: str) -> None:
    with pytest.raises(UserError):
        Architecture.from_yaml(text)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_damaged_document_is_read_or_refused(data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(ERFNET) - 1))
    length = data.draw(st.integers(0, 30))
    damaged = ERFNET[:start] + data.draw(st.text(LETTERS, max_size=10)) + ERFNET[start + length :]
    try:
        read = Architecture.from_yaml(damaged)
    except UserError as error:
        message = str(error)
    else:
        message = read.key
    assert message


def test_architectures_are_loaded_by_name_and_path_and_missing_ones_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(ERFNET)
    assert space.load(file) == space.load(str(file)) == space.load("erfnet")
    with pytest.raises(ArchitectureError, match="got 'erfnt'; did you mean 'erfnet'"):
        space.load("erfnt")
    with pytest.raises(ArchitectureError, match="known: dabnet, ddrnet23-slim, "):
        space.load("qqqqq")
    with pytest.raises(ArchitectureError, match=r"missing\.yaml: cannot read the architecture \(No such file"):
        space.load(tmp_path / "missing.yaml")
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(ArchitectureError, match=r"folder\.yaml: cannot read the architecture"):
        space.load(tmp_path / "folder.yaml")
    binary = tmp_path / "weights.yaml"
    binary.write_bytes(bytes(range(256)))
    with pytest.raises(ArchitectureError, match="not UTF-8 text"):
        space.load(binary)
    file.write_text(ERFNET.replace("depth: 5", "depth: five"))
    with pytest.raises(UserError, match=r"mine\.yaml:\d+: stages\[0\]\.depth"):
        space.load(file)
