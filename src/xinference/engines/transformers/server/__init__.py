"""An OpenAI-compatible server for transformers. It is started by its path and imports no other module of Xinference."""
