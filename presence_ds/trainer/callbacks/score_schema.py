"""The columns of score records: a row for each sample or, with granularity document, each document of one."""

import pyarrow as pa

SCHEMA = pa.schema(
    [
        pa.field("step", pa.int32(), nullable=False),  # optimizer step, counted from 1
        pa.field("micro_step", pa.int16(), nullable=False),  # within the optimizer step, from 0
        pa.field("rank", pa.int32(), nullable=False),
        pa.field("position", pa.int32(), nullable=False),  # of the sample within the micro-batch, from 0
        pa.field("source", pa.dictionary(pa.int16(), pa.string()), nullable=False),
        pa.field("document_id", pa.string(), nullable=False),  # the document the sample, or piece, starts in
        pa.field("offset", pa.int64(), nullable=False),  # of the sample's first token in that document, in tokens
        pa.field("loss", pa.float32(), nullable=False),
        pa.field("self_influence", pa.float32()),  # null where no gradients are scored
        pa.field("alignment", pa.float32()),  # with the mean gradient of the step's others; null where not computed
        pa.field("reference_alignment", pa.float32()),  # with the reference gradient; null without one
        pa.field("vocabulary_influence", pa.float32()),  # of it, in embeddings and head; null where not asked for
        pa.field("momentum_alignment", pa.float32()),  # with the direction of the steps before; null likewise
        pa.field("weight", pa.float32(), nullable=False),  # over all ranks and micro-steps of a step they sum to 1
        pa.field("has_targets", pa.bool_(), nullable=False),  # without, a sample is left out: its weight is 0
    ]
)
