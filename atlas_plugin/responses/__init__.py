"""Responses of /v1/responses that are kept: their items, and what clients may ask of them."""
