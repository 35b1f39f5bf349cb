"""How messages look as bytes: envelopes, msgpack bodies, pickled payloads, runner pipes."""
