"""The report of a study, and of several side by side, as one HTML page that needs no network.

`page` puts the sections in their order. Each section is a module of its own: what it computes from a `StudyRecord`, and the
template that shows it. To add one, write such a module and add its `SECTION` to the list in `page`.

`plotly-basic.min.js` is plotly.js 4.1.1 in its smallest build (MIT licence), as its makers publish it.
"""
