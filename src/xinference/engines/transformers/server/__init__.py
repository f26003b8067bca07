"""An OpenAI-compatible server over transformers; started by path inside its environment, imports nothing of ours."""
