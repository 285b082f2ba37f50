"""Whose names a request may use. A tenant's are stored as TENANT/NAME, which no name can look like."""

from atlas_plugin.http import Request, require_admin


def tenant_of(request: Request, wanted: str | None) -> str:
    """The tenant that a request is about; `wanted` is what it asks for, where it does.

    Raises Forbidden unless the request is an admin's.
    """
    require_admin(request, "use the field 'tenant'", wanted is not None)
    return request.tenant if wanted is None else wanted


def tenant_to_list(request: Request, wanted: str | None) -> str | None:
    """The same for a list, where an admin who does not ask for one tenant sees all: None."""
    tenant = tenant_of(request, wanted)
    return None if request.is_admin and wanted is None else tenant


def full_name(tenant: str, name: str) -> str:
    """The name as it is stored."""
    return f"{tenant}/{name}" if tenant else name


def split_name(full: str) -> tuple[str, str]:
    """The tenant and the name of a stored one."""
    tenant, _, name = full.rpartition("/")
    return tenant, name
