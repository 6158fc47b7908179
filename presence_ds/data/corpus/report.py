"""What was read, kept, dropped and skipped while a corpus was prepared."""

from dataclasses import dataclass, field

from rich.table import Table
from rich.text import Text

from presence_ds.data.sources.tally import Skipped
from presence_ds.printable import printable


@dataclass
class SourceReport:
    """One source's share of the training or of the validation part.

    Args:
        documents: Documents tokenized.
        characters: Their characters.
        tokens: Their tokens, one EOS per document included.
        samples: Packed samples.
        dropped_tokens: Tokens in no sample: with concat the end that did not fill one, otherwise single tokens that
            would have been alone in one.
        padding: Positions of the samples without a token.
        duplicates: Training documents left out because validation has the same text; not among documents.
        skipped: Unusable rows of the files this part was read from. Rows are skipped before documents are held out for
            validation: those of a training source are all counted with the training part.
    """

    documents: int = 0
    characters: int = 0
    tokens: int = 0
    samples: int = 0
    dropped_tokens: int = 0
    padding: int = 0
    duplicates: int = 0
    skipped: Skipped = field(default_factory=Skipped)


@dataclass
class CorpusReport:
    """The whole corpus.

    Args:
        sequence_length: Tokens per stored sample, which is longer than data.sequence_length with span corruption.
        vocab_size: Tokens in the tokenizer.
        train: Training part by source name; empty with data.streaming.
        validation: Validation part by source name.
        seconds: Time the preparation took.
    """

    sequence_length: int
    vocab_size: int
    train: dict[str, SourceReport] = field(default_factory=dict)
    validation: dict[str, SourceReport] = field(default_factory=dict)
    seconds: float = 0.0

    def table(self) -> Table:
        """The report for people, narrow enough for a log of 80 columns, to be printed with rich."""
        table = Table(
            title=f"Corpus: samples of {self.sequence_length} tokens, vocabulary of {self.vocab_size}",
            box=None,
            padding=(0, 1, 0, 0),
        )
        table.add_column("source", overflow="fold")
        padded = any(report.padding for part in (self.train, self.validation) for report in part.values())
        for name in ("documents", "tokens", "samples", "dropped tokens", "duplicates", "skipped rows"):
            table.add_column(name, justify="right")
        if padded:
            table.add_column("padding", justify="right")
        for part, sources in (("train", self.train), ("validation", self.validation)):
            if sources:
                table.add_row(part, style="bold")
            for name, report in sources.items():
                counts = (report.documents, report.tokens, report.samples, report.dropped_tokens, report.duplicates)
                share = [f"{report.padding / max(report.samples * self.sequence_length, 1):.1%}"] if padded else []
                table.add_row(
                    Text(f"  {printable(name)}"), *(f"{count:,}" for count in (*counts, report.skipped.rows)), *share
                )
        return table
