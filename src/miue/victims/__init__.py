"""Victims: what somebody else trains. A recipe describes that training, `fit` carries it out."""
