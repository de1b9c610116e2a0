"""${message}"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from airflow_provider_gpu_cluster.job_table.column_types import JSON_VALUE, ROW_ID, TABLE_OPTIONS, UtcTime
${imports if imports else ""}

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def upgrade() -> None:
    """Bring the tables to this revision."""
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    """Bring them back to the one before."""
    ${downgrades if downgrades else "pass"}
