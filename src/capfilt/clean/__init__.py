"""CapFilt itself: synthesise, score, decide, ledger."""
