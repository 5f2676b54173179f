"""The dashboard: ``rows`` what a page is told of each container and image, ``actions`` what its buttons do, ``panes`` what is shown of
one, ``static`` the form that does not move. The page itself is ``widgets/dashboard``."""
