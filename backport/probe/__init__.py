"""A mail server examined from outside: by what it says on a few connections, and by what the web says
about its certificates. It needs no access to the server, and sends no mail.
"""

from __future__ import annotations

from backport.probe.examine import Report, Subject, examine, plan
from backport.probe.transport import Expectation

__all__ = ["Expectation", "Report", "Subject", "examine", "plan"]
