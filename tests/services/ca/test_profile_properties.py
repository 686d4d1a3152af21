"""Templates and patterns of profiles, for every input."""

from __future__ import annotations

import re
import string
import time
from contextlib import suppress
from dataclasses import fields

import pytest
from cryptography import x509
from hypothesis import given, settings
from hypothesis import strategies as st

from lamassu.kernel.errors import RuleViolation
from lamassu.kernel.x509.names import Subject
from lamassu.services.ca.contract import (
    AllowedNames,
    AlternativeNameRules,
    IssuanceProfile,
    NamedValue,
    NameType,
    SubjectRules,
)
from lamassu.services.ca.rules.general_names import general_name
from lamassu.services.ca.rules.names import check_alternative_names
from lamassu.services.ca.rules.naming_templates import PLACEHOLDERS, Variables, parse_template
from lamassu.services.ca.rules.patterns import LONGEST_PATTERN, compiled
from lamassu.services.ca.rules.prepared import prepare

TEXTS = st.text(max_size=40)
SUBJECTS = st.builds(Subject, **{field.name: TEXTS for field in fields(Subject)})
KNOWN = st.builds(Variables, SUBJECTS, TEXTS, TEXTS, TEXTS, TEXTS)
PARTS = st.lists(st.sampled_from([f"{{{name}?}}" for name in PLACEHOLDERS]) | TEXTS, max_size=5)


def escaped(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


@given(TEXTS, KNOWN)
def test_an_escaped_text_is_itself(text: str, known: Variables) -> None:
    template = parse_template(escaped(text))

    assert template.fixed == text
    assert template.filled(known) == text


@given(PARTS, KNOWN)
def test_a_template_is_its_texts_and_values_in_turn(parts: list[str], known: Variables) -> None:
    names = {f"{{{name}?}}": name for name in PLACEHOLDERS}
    template = parse_template("".join(p if p in names else escaped(p) for p in parts))

    values = {
        "csr.cn": known.csr.common_name,
        "csr.o": known.csr.organization,
        "csr.ou": known.csr.organization_unit,
        "csr.c": known.csr.country,
        "csr.st": known.csr.state,
        "csr.l": known.csr.locality,
        "device_id": known.device_id,
        "dms_id": known.dms_id,
        "key_id": known.key_id,
        "ca_id": known.ca_id,
    }
    assert set(values) == set(PLACEHOLDERS)
    # a value that looks like a placeholder is not read again
    assert template.filled(known) == "".join(values[names[p]] if p in names else p for p in parts)


@given(st.text(max_size=600), KNOWN)
def test_any_text_is_a_template_or_refused(text: str, known: Variables) -> None:
    with suppress(ValueError):
        template = parse_template(text)
        with suppress(RuleViolation):
            assert isinstance(template.filled(known), str)


@given(st.sampled_from(list(NameType)), st.text(max_size=80) | st.from_regex(r"[a-z0-9.@:/*-]+"))
def test_a_name_in_words_is_one_general_name_or_refused(type_: NameType, value: str) -> None:
    with suppress(ValueError):
        san = x509.SubjectAlternativeName([general_name(type_, value)]).public_bytes()
        with suppress(RuleViolation):
            check_alternative_names(san)


@given(
    st.sampled_from([NameType.DNS, NameType.EMAIL, NameType.URI]),
    st.text(max_size=30) | st.text(string.ascii_letters + string.punctuation, max_size=30),
)
def test_what_a_request_says_stays_in_its_place(type_: NameType, said: str) -> None:
    frames = {
        NameType.DNS: ("a-", ".devices.example", "@/?#:*"),
        NameType.EMAIL: ("a-", "@devices.example", "@*"),
        NameType.URI: ("https://devices.example/", "/end", "@/?#:*"),
    }
    before, after, outside = frames[type_]
    names = (NamedValue(type_, f"{before}{{csr.cn?}}{after}"),)
    ready = prepare(IssuanceProfile("p", alternative_names=AlternativeNameRules(names=names)))

    with suppress(RuleViolation):
        san = ready.names_from(Variables(Subject(common_name=said), "", ""))
        assert san is not None
        check_alternative_names(san)
        assert before.encode() in san
        assert san.endswith(after.encode())
        inside = san.partition(before.encode())[2].removesuffix(after.encode())
        assert not set(outside.encode()) & set(inside)


# what means the same to RE2 and to `re`
SIMPLE = st.recursive(
    st.sampled_from(["a", "b", "[ab]", "[^a]", "[0-9]", r"\.", "."]),
    lambda inner: (
        st.tuples(inner, inner).map("".join)
        | st.tuples(inner, inner).map(lambda pair: f"({pair[0]}|{pair[1]})")
        | st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{0,3}"])).map(
            lambda pair: f"({pair[0]}){pair[1]}"
        )
    ),
    max_leaves=8,
)


@given(SIMPLE, st.text("ab0.", max_size=12))
def test_a_pattern_matches_the_whole_text_as_re_does(pattern: str, text: str) -> None:
    with suppress(ValueError):
        assert bool(compiled(pattern).fullmatch(text)) == bool(re.fullmatch(pattern, text))


@given(st.text(max_size=60))
def test_any_text_is_a_pattern_or_refused(pattern: str) -> None:
    with suppress(ValueError):
        compiled(pattern).fullmatch("device-1")


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+",
        "(a|a)*b",
        "(a*)*c",
        "((a?){50}){4}a{50}",
        "(.*)(.*)(.*)(.*)(.*)(.*)(.*)(.*)x",
        "([a-z]+)*@",
        "(" * 50 + "a" + ")*" * 50,
    ],
)
def test_no_pattern_takes_long(pattern: str) -> None:
    ready = compiled(pattern)
    began = time.process_time()
    for length in (64, 253, 8192):
        ready.fullmatch("a" * length + "!")

    assert time.process_time() - began < 1


def test_patterns_are_bounded() -> None:
    for pattern in ("", "a" * (LONGEST_PATTERN + 1), "(((a{100}){100}){100}){100}", r"(a)\1"):
        with pytest.raises(ValueError, match="pattern"):
            compiled(pattern)


@settings(deadline=None)
@given(st.lists(st.sampled_from(["a.x.example", "b.x.example", "evil.example"]), min_size=1))
def test_bounds_take_what_each_of_the_names_is_in(names: list[str]) -> None:
    rules = AlternativeNameRules(allowed=(AllowedNames(NameType.DNS, (r"[a-z]\.x\.example",)),))
    ready = prepare(IssuanceProfile("p", alternative_names=rules))
    san = x509.SubjectAlternativeName([x509.DNSName(name) for name in names]).public_bytes()

    if "evil.example" in names:
        with pytest.raises(RuleViolation):
            ready.check_alternative_names(san)
    else:
        ready.check_alternative_names(san)


@given(SUBJECTS)
def test_a_subject_that_no_pattern_names_is_never_refused(subject: Subject) -> None:
    ready = prepare(IssuanceProfile("p", subject_rules=SubjectRules()))

    ready.check_subject(x509.Name([]))
    assert ready.subject_from(Variables(subject, "", "")) is None
