"""The colours of the page and its charts. Charts are drawn in the light ones, which the page replaces by variables."""

from __future__ import annotations

from collections.abc import Mapping

LIGHT: Mapping[str, str] = {
    "ground": "#ffffff",
    "raised": "#f5f7f9",
    "ink": "#1a2027",
    "soft": "#5c6773",
    "line": "#dde2e8",
    "seed": "#1f8a5f",
    "random": "#858d98",
    "guided": "#2f6bd8",
    "company": "#b4532a",
    "pruned": "#8a4fbf",
    "winner": "#c98a06",
    "good": "#1f7a4d",
    "bad": "#b3372b",
    "unsure": "#8a6100",
    "bar": "#7f9cc7",
    "warn": "#fff6df",
    "warn-line": "#e4c56a",
}
DARK: Mapping[str, str] = {
    "ground": "#14181d",
    "raised": "#1d232a",
    "ink": "#e8ecf0",
    "soft": "#9aa6b2",
    "line": "#323a44",
    "seed": "#4cc38f",
    "random": "#9aa3ae",
    "guided": "#7aa7ff",
    "company": "#ef8f63",
    "pruned": "#c08cff",
    "winner": "#ffc94d",
    "good": "#5fd39a",
    "bad": "#ff8578",
    "unsure": "#f0c04a",
    "bar": "#5f82b8",
    "warn": "#332b14",
    "warn-line": "#6d5a20",
}
PRINTED: Mapping[str, str] = {**LIGHT, "ink": "#000000", "soft": "#4c5661", "line": "#d0d6dd"}
