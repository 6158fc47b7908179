"""The documentation as a site that is searched and read without a network: ``make docs``."""

project = "presence_ds"
html_title = project
extensions = ["myst_parser"]
html_theme = "furo"
myst_heading_anchors = 4  # links to headings, named as GitHub names them
highlight_language = "text"  # of blocks that name no language
smartquotes = False  # -- begins an option here
html_copy_source = False
html_show_sourcelink = False
