"""Samples: three packings of tokenized documents, and what an objective makes of them for a model.

concat       documents joined and cut at every ``row_length`` tokens: no padding, samples begin and end anywhere
best_fit     documents kept whole where they fit, several to a sample: little padding
document     one document to a sample: as much padding as documents are short

Each packing takes documents as (id, tokens), puts EOS after every one, and keeps every token exactly once and in order,
but for those that the report counts as dropped. The EOS belongs to the document before it.
"""

from presence_ds.data.samples.best_fit import best_fit
from presence_ds.data.samples.concat import concat
from presence_ds.data.samples.one_document import one_document_per_sample

PACKINGS = {"concat": concat, "best_fit": best_fit, "document": one_document_per_sample}
