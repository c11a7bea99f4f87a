"""One table a foreign origin; `rename` reads them in both directions."""
