"""Documents <-> token rows: vocabulary, wording, layout, packing, and the audit of what carries loss."""
