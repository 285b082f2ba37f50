"""Makes the small chat model of `make serve`, and measures it.

`make train-demo-model` does the one, `make evaluate-demo-model` the other.

names, facts and small_talk say what the dialogues are made of, dialogues puts them together, tokenizer makes
tokens of them, network and training learn them, gguf_file writes what was learned, and evaluation asks
llama-server. models/README.md describes the result.
"""
