"""What values of direct identifiers look like, whatever the column is called."""

from __future__ import annotations

# Regular expressions (RE2) for whole values.
LOOKS = {
    "e-mail address": r"^\s*[^@\s]+@[^@\s]+\.[A-Za-z]{2,}\s*$",
    "IPv4 address": r"^\s*(\d{1,3}\.){3}\d{1,3}\s*$",
    "IPv6 address": r"^\s*(([0-9A-Fa-f]{1,4}:){7}[0-9A-Fa-f]{1,4}|[0-9A-Fa-f:]*::[0-9A-Fa-f:.]*)\s*$",
    # 15 digits (3GPP TS 23.003), without the check digit 14, with the software version 16.
    "IMSI or IMEI": r"^\s*\d{14,16}\s*$",
    # E.164: at most 15 digits; spaced and punctuated as people do only after + or 00.
    "MSISDN": r"^\s*(\+?[1-9]\d{9,12}|(\+|00)[1-9]([ ()./-]{0,2}\d){6,14})\s*$",
}
