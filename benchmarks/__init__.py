"""Method comparison and cost measurements; `edge-zofc bench` runs them. See README.md here."""
