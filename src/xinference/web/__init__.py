"""The built files of the web page, in `dist`; their source is the folder `ui` of the repository."""
