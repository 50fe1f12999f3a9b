"""Grade-school arithmetic problems with worked solutions: the embedded pair's whole world.

A *problem* tells of one person's things through two to six changes and asks how many there are in
the end; its solution takes one step a change and closes with an answer line, so that "is it right?"
is exact. A *sheet* is what a model is prompted with: one or more problems, at least `MIN_STEPS`
steps together, because a solution of that many steps fills the protocol's 192 response positions.

All whole numbers stay within 0..`LARGEST`. Not covered: fractions, units, distractors, problems
whose steps are not in the order of the story.
"""

from __future__ import annotations

import math
import random
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from diagnostics.embedded import words

LARGEST = 99
MIN_STEPS = 8
STEPS = (2, 6)
HELD_OUT_ONE_IN = 16
SCRATCH_LIMIT = 10  # sums whose second number is below this are written without split tens


@dataclass(frozen=True, slots=True)
class Author:
    """Who writes the solutions; the problems are the same for all.

    Fields: `habit` how much earlier phrases of each list are preferred (each is exp(habit) times as
    frequent as the next, 0 makes all alike); `careless` authors call the things by a name of
    another each time they mention them. Numbers are always right.
    """

    habit: float = 0.0
    careless: bool = False


CAREFUL = Author()


@dataclass(frozen=True, slots=True)
class Problem:
    """One word problem.

    Fields: `text` the story and question; `solution` its worked lines, without the answer line;
    `answer` the final count; `steps` how many changes the story has.
    """

    text: str
    solution: str
    answer: int
    steps: int

    @property
    def signs(self) -> frozenset[str]:
        """Which of + - * / the worked lines use."""
        return frozenset(SIGN.findall(self.solution))


@dataclass(frozen=True, slots=True)
class Sheet:
    """One prompt with one or more problems.

    Fields: `prompt` what a model reads; `solution` the reference response; `answers` one integer a
    problem, in order; `problems` themselves.
    """

    prompt: str
    solution: str
    answers: tuple[int, ...]
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class _Change:
    """One change of the count: what the story says, what the solution says, the new count."""

    story: str
    work: str
    count: int


@dataclass(frozen=True, slots=True)
class _Scene:
    """Who and what a problem is about; every template draws its words from here."""

    name: str
    thing: str
    place: str
    person: str
    other: str
    container: str
    day: str

    def fill(self, template: str, **numbers: int) -> str:
        return template.format(
            name=self.name,
            thing=self.thing,
            place=self.place,
            person=self.person,
            other=self.other,
            container=self.container,
            day=self.day,
            **numbers,
        )


Templates = tuple[str, ...]

OPENINGS: Templates = (
    "{name} has {a} {thing}.",
    "On {day}, {name} starts with {a} {thing}.",
    "{name} keeps {a} {thing} in the {place}.",
    "There are {a} {thing} in the {place}, and all of them belong to {name}.",
    "{name} brings {a} {thing} to the {place}.",
    "A {person} leaves {a} {thing} with {name}.",
)
GAINS: Templates = (
    "{name} buys {b} more {thing} at the {place}.",
    "Then {other} gives {name} {b} {thing}.",
    "The {person} brings {b} more.",
    "{name} finds {b} {thing} near the {place}.",
    "On {day}, {b} more {thing} arrive.",
    "{other} adds {b} {thing} from the {place}.",
    "{name} wins {b} {thing} from the {person}.",
)
LOSSES: Templates = (
    "{name} gives {b} {thing} to {other}.",
    "{b} of the {thing} are lost on the way to the {place}.",
    "The {person} takes {b} of them.",
    "{name} sells {b} {thing} at the {place}.",
    "On {day}, {b} {thing} break.",
    "{name} leaves {b} {thing} in the {place}.",
    "{other} borrows {b} {thing}.",
)
TIMES: Templates = (
    "Then the number of {thing} grows to {b} times as many.",
    "The {person} makes it {b} times as many.",
    "By {day}, {name} has {b} times as many {thing}.",
    "{other} packs {b} {container}, each with as many {thing} as {name} has, and gives them all "
    "to {name} in exchange.",
)
SHARES: Templates = (
    "{name} puts the {thing} into {b} equal {container} and keeps only one of them.",
    "{name} shares the {thing} equally among {b} people and keeps one share.",
    "At the {place}, the {thing} are split into {b} equal {container}, and {name} takes one.",
)
QUESTIONS: Templates = (
    "How many {thing} does {name} have now?",
    "How many {thing} are left for {name}?",
    "What is the number of {thing} in the end?",
    "How many {thing} does {name} have in total?",
)
STARTS: Templates = (
    "At first, {name} has {a} {thing}.",
    "{name} starts with {a} {thing}.",
    "The count of {thing} begins at {a}.",
    "First, note that {name} has {a} {thing}.",
)
WORK_GAINS: Templates = (
    "After getting {b} more, {name} has",
    "Add the {b} new {thing}:",
    "With {b} more {thing}, the count is",
    "{name} gains {b}, which makes",
)
WORK_LOSSES: Templates = (
    "After losing {b}, {name} has",
    "Take away {b} {thing}:",
    "With {b} {thing} gone, the count is",
    "{name} is without {b} of them, which leaves",
)
WORK_TIMES: Templates = (
    "With {b} times as many, {name} has",
    "Multiply the {thing} by {b}:",
    "The count becomes {b} times as large:",
)
WORK_SHARES: Templates = (
    "Split into {b} equal parts, {name} keeps",
    "Divide the {thing} by {b}:",
    "One of {b} equal shares is",
)
ENDINGS: Templates = (
    " So {name} has {c} {thing}.",
    " Now there are {c} {thing}.",
    " That is {c} {thing}.",
    "",
)

SIGN = re.compile(r"\d ([-+*/]) \d")
ANSWER = re.compile(r"^Answer (\d+): (\d+)$", re.MULTILINE)


def addition(a: int, b: int) -> str:
    """The written work of a + b; tens and ones apart where b has both."""
    if b < SCRATCH_LIMIT or b % 10 == 0:
        return f"{a} + {b} = {a + b}."
    tens, ones = b - b % 10, b % 10
    return f"{a} + {tens} = {a + tens}, {a + tens} + {ones} = {a + b}."


def subtraction(a: int, b: int) -> str:
    """The written work of a - b; tens and ones apart where b has both."""
    if b < SCRATCH_LIMIT or b % 10 == 0:
        return f"{a} - {b} = {a - b}."
    tens, ones = b - b % 10, b % 10
    return f"{a} - {tens} = {a - tens}, {a - tens} - {ones} = {a - b}."


def make_problem(rng: random.Random, steps: int, author: Author = CAREFUL) -> Problem:
    """One problem with `steps` changes, its solution by `author`.

    Raises ValueError for fewer than one step.
    """
    if steps < 1:
        raise ValueError(f"expected at least one step, got steps={steps}")
    name, other = rng.sample(words.NAMES, 2)
    scene = _Scene(
        name=name,
        thing=_thing(rng),
        place=rng.choice(words.PLACES),
        person=rng.choice(words.PEOPLE),
        other=other,
        container=rng.choice(words.CONTAINERS),
        day=rng.choice(words.DAYS),
    )
    count = rng.randint(2, 60)
    story = [scene.fill(rng.choice(OPENINGS), a=count)]
    work = [_retold(rng, scene, author).fill(_phrase(rng, STARTS, author), a=count)]
    for _ in range(steps):
        change = _change(rng, _elsewhere(rng, scene), count, author)
        count = change.count
        story.append(change.story)
        work.append(change.work)
    story.append(scene.fill(rng.choice(QUESTIONS)))
    return Problem(text=" ".join(story), solution="\n".join(work), answer=count, steps=steps)


def make_sheet(rng: random.Random, author: Author = CAREFUL) -> Sheet:
    """One prompt: problems of 2 to 6 steps until they have `MIN_STEPS` steps together."""
    problems: list[Problem] = []
    while sum(problem.steps for problem in problems) < MIN_STEPS:
        problems.append(make_problem(rng, rng.randint(*STEPS), author))
    prompt = "".join(f"Problem {i}. {p.text}\n" for i, p in enumerate(problems, 1)) + "\n"
    solution = "".join(
        f"Solution {i}.\n{p.solution}\nAnswer {i}: {p.answer}\n" for i, p in enumerate(problems, 1)
    )
    return Sheet(
        prompt=prompt,
        solution=solution,
        answers=tuple(p.answer for p in problems),
        problems=tuple(problems),
    )


def is_held_out(prompt: str) -> bool:
    """Whether a prompt belongs to the held-out sixteenth, decided by its text alone."""
    return zlib.crc32(prompt.encode()) % HELD_OUT_ONE_IN == 0


def sheets(seed: int, *, held_out: bool, author: Author = CAREFUL) -> Iterator[Sheet]:
    """The endless stream of one seed's sheets from one side of the split.

    The problems are the same whoever the `author` of the solutions is. Training draws only from
    `held_out=False`, so no seed can make it see a held-out prompt.
    """
    rng = random.Random(seed)
    while True:
        sheet = make_sheet(rng, author)
        if is_held_out(sheet.prompt) == held_out:
            yield sheet


def read_answers(response: str) -> dict[int, int]:
    """Problem number -> answer that a response states; of several lines for one, the last."""
    return {int(number): int(value) for number, value in ANSWER.findall(response)}


def count_right(response: str, answers: Sequence[int]) -> int:
    """How many of `answers` (problem 1 first) the response states correctly."""
    stated = read_answers(response)
    return sum(stated.get(number) == answer for number, answer in enumerate(answers, 1))


def _elsewhere(rng: random.Random, scene: _Scene) -> _Scene:
    """The same person and things with new bystanders and places, for the next sentence."""
    other = rng.choice(words.NAMES)
    return _Scene(
        name=scene.name,
        thing=scene.thing,
        place=rng.choice(words.PLACES),
        person=rng.choice(words.PEOPLE),
        other=other if other != scene.name else scene.other,
        container=rng.choice(words.CONTAINERS),
        day=rng.choice(words.DAYS),
    )


def _phrase(rng: random.Random, phrases: Templates, author: Author) -> str:
    """One phrase of a solution, by the author's habit."""
    if author.habit == 0:
        return rng.choice(phrases)
    weights = [math.exp(-author.habit * index) for index in range(len(phrases))]
    return rng.choices(phrases, weights)[0]


def _retold(rng: random.Random, scene: _Scene, author: Author) -> _Scene:
    """The scene as the author tells it: a careless one calls the things by another name."""
    return replace(scene, thing=_thing(rng)) if author.careless else scene


def _thing(rng: random.Random) -> str:
    adjective = rng.choice(words.ADJECTIVES) + " " if rng.random() < 0.5 else ""
    return adjective + rng.choice(words.THINGS)


def _change(rng: random.Random, scene: _Scene, count: int, author: Author) -> _Change:
    """A change that is possible at this count: result within 1..LARGEST, divisions exact."""
    factors = [k for k in range(2, 10) if count * k <= LARGEST]
    divisors = [k for k in range(2, 10) if count % k == 0 and count // k >= 2]
    kinds = ["gain"] * (count <= LARGEST - 2) * 3 + ["loss"] * (count >= 3) * 3
    kinds += ["times"] * bool(factors) * 2 + ["share"] * bool(divisors) * 2
    kind = rng.choice(kinds)
    if kind == "gain":
        b = rng.randint(2, min(LARGEST - count, 50))
        after, stories, works, line = count + b, GAINS, WORK_GAINS, addition(count, b)
    elif kind == "loss":
        b = rng.randint(2, min(count - 1, 50))
        after, stories, works, line = count - b, LOSSES, WORK_LOSSES, subtraction(count, b)
    elif kind == "times":
        b = rng.choice(factors)
        after, stories, works = count * b, TIMES, WORK_TIMES
        line = f"{count} * {b} = {after}."
    else:
        b = rng.choice(divisors)
        after, stories, works = count // b, SHARES, WORK_SHARES
        line = f"{count} / {b} = {after}."
    story = scene.fill(rng.choice(stories), b=b)
    work = _retold(rng, scene, author).fill(_phrase(rng, works, author), b=b) + " " + line
    ending = _retold(rng, scene, author).fill(_phrase(rng, ENDINGS, author), c=after)
    return _Change(story=story, work=work + ending, count=after)
