"""Instructions: what the robot was told, frame by frame, and whether a policy can read it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from libra_edge.data.findings import Finding, doubt, error, note
from libra_edge.data.lerobot.dataset import Dataset
from libra_edge.errors import InputError
from libra_edge.policy.tokenizer import Tokenizer, word_tokenizer


def check_instructions(
    dataset: Dataset, tokenizer: Tokenizer | None, longest: int
) -> Iterator[Finding]:
    """Every instruction, at the first frame that has it.

    Args:
        dataset: the dataset.
        tokenizer: the policy's; None for one that is made of the dataset's own words.
        longest: tokens that the policy takes, where there is no tokenizer yet.
    """
    places: dict[str, tuple[int, int]] = {}
    for info in dataset.episodes:
        for step, text in info.told:
            places.setdefault(text, (info.index, step))
    words = word_tokenizer(text for text in places if text.strip())
    for text, (episode, step) in places.items():
        where: dict[str, Any] = {"feature": "task_index", "episode": episode, "frame": step}
        if not text.strip():
            yield error(
                "dataset-instruction-empty",
                f"the instruction of episode {episode}, frame {step} is empty.",
                "Write what the robot was told in meta/tasks.parquet (v2: tasks.jsonl).",
                **where,
            )
        elif tokenizer is not None:
            yield from _readable(tokenizer, text, where)
        elif (length := len(words.encode(text).ids)) > longest:
            yield error(
                "dataset-instruction-too-long",
                f"the instruction of episode {episode}, frame {step} has {length} words and "
                f"marks, the policy takes {longest}: {_short(text)!r}.",
                f"Set instruction_length = {length} in [policy] of the training recipe, or "
                "shorten the instruction in meta/tasks.parquet.",
                **where,
            )
    yield from _index(dataset)


def _readable(tokenizer: Tokenizer, text: str, where: dict[str, Any]) -> Iterator[Finding]:
    try:
        tokenizer.encode(text)
    except InputError as caught:
        fact = caught.fact[0].lower() + caught.fact[1:]
        yield error(
            caught.code,
            f"episode {where['episode']}, frame {where['frame']}: {fact}",
            caught.remedy,
            **where,
        )


def _index(dataset: Dataset) -> Iterator[Finding]:
    changing = [info for info in dataset.episodes if len(info.told) > 1]
    if changing:
        first = changing[0]
        yield note(
            "dataset-instruction-changes",
            f"the instruction changes inside {len(changing)} of {len(dataset.episodes)} episodes, "
            f"first in episode {first.index} at frame {first.told[1][0]}: to "
            f"{_short(first.told[1][1])!r}.",
            "Nothing: every frame goes with its own instruction.",
            feature="task_index",
            episode=first.index,
            frame=first.told[1][0],
        )
    for info, row in zip(dataset.episodes, dataset.layout.rows, strict=True):
        told = {text for _, text in info.told}
        if told != set(row.tasks):
            yield doubt(
                "dataset-tasks-differ",
                f"meta/episodes says of episode {info.index} that it was told "
                f"{_list(row.tasks)}; task_index of its frames says {_list(told)}.",
                "The frames are believed, as LeRobot does; correct the index if that is wrong.",
                feature="task_index",
                episode=info.index,
            )
            return


def _list(texts: Any) -> str:
    return ", ".join(repr(_short(text)) for text in sorted(texts)) or "nothing"


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
