"""The ledger of papers and the claims that check them.

Belongs here: `ledger.jsonl` (one row a paper), search over it, the check that keeps it honest, the runner of claims,
the claims themselves (`claims/`, one file a claim), their recorded results (`results/`, one file a claim) and the
generated catalogue. Does not belong here: methods, networks, data.

Contract: a row's status is `works` only with evidence that passes: a recorded result of a claim or a test id. A claim
is a `Claim` record at the bottom of a file in `claims/`; `netsuke claim run ID` runs it. To add one: write the file,
run it with `--record`, name it in the row's `evidence`.
"""
