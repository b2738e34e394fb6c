"""Evidence from plain Python lists, for tests of what reads it."""

from __future__ import annotations

import pyarrow as pa

from raymia.evidence.text import ModelEvidence, neighbor_evidence, token_evidence
from raymia.questions.text import SUM_SCHEMA, TOKEN_SCHEMA


def token_table(answers):
    """A table of text.tokens from {record: list of (log_prob, mean, std)}, or an error text."""
    rows = []
    for record, answer in answers.items():
        row = {"record_id": record, "neighbor": 0, "truncated": False}
        if isinstance(answer, str):
            rows.append({**row, "error": answer})
            continue
        log_prob, mean, std = (list(c) for c in zip(*answer, strict=True))
        rows.append(
            {**row, "token_ids": list(range(len(answer))), "log_prob": log_prob,
             "mean_log_prob": mean, "std_log_prob": std,
             "is_top1": [p > -1 for p in log_prob]}
        )  # fmt: skip
    return pa.Table.from_pylist(rows, schema=TOKEN_SCHEMA)


def neighbor_table(answers):
    """A table of text.neighbors from {(record, neighbor): (sum, count)}, or an error text."""
    rows = []
    for (record, neighbor), answer in answers.items():
        row = {"record_id": record, "neighbor": neighbor, "truncated": False}
        if isinstance(answer, str):
            rows.append({**row, "error": answer})
        else:
            rows.append({**row, "log_prob_sum": answer[0], "token_count": answer[1]})
    return pa.Table.from_pylist(rows, schema=SUM_SCHEMA)


def model_evidence(ids, tokens, neighbors=None, count=0):
    made = neighbor_evidence(neighbor_table(neighbors), ids, count) if neighbors else None
    return ModelEvidence(token_evidence(token_table(tokens), ids), made)
