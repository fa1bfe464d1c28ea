"""The results and the docs as a static site: pages that open from disk, without a server.

Nothing here imports torch. The templates and scripts are in ``templates`` and ``assets``.
"""
