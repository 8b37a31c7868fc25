"""How good an encoder is, judged on labelled persons of the shipped samples who are at no site."""
