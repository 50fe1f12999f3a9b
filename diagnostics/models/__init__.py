"""Models and tokenizers: finding, fingerprinting and loading them."""
