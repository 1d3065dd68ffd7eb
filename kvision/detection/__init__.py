"""Networks that find objects, and the search for places where objects may be."""

from kvision.detection._selective_search import selective_search as selective_search
