"""Files of the names that the study's sources have, with sentences made up."""

import json
import random
from pathlib import Path

from study.texts import SOURCES


def write_texts(folder: Path) -> Path:
    """Make them below ``folder``, which is returned."""
    source = random.Random(0)
    syllables = ["ba", "de", "gi", "lo", "mu", "ra", "se", "ti", "ko", "nu"]
    words = ["".join(source.choices(syllables, k=source.randint(1, 4))) for _ in range(400)]
    for name, fields in SOURCES.items():
        file = folder / fields["path"].replace("*", "one")
        file.parent.mkdir(parents=True, exist_ok=True)
        documents = [" ".join(source.choices(words, k=60)) + f" {name}." for _ in range(150)]
        if file.suffix == ".jsonl":
            field = fields.get("text_field", "text")
            lines = "".join(json.dumps({field: document}) + "\n" for document in documents)
            file.write_text(lines, encoding="utf-8")
        else:
            file.write_text("\n\n".join(documents), encoding="utf-8")
    return folder
