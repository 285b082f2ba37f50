"""What the settings turn off, as sentences that say how to turn it on."""

from atlas_plugin.host.settings import Settings


def why_nothing_is_saved(settings: Settings) -> str:
    """Why nothing survives a restart; empty when it does."""
    if not settings.flag("enable_memory_persistence"):
        return f"memory persistence is off: turn it on with {settings.switches('enable_memory_persistence')}"
    if not settings.text("memory_save_path"):
        entry = settings.entry("memory_save_path")
        return f"memory persistence is off: start the server with {entry['flag']} DIR or set {entry['env']}"
    return ""


def why_no_conversations(settings: Settings) -> str:
    """Why there is no memory of conversations, nor sessions; empty when there is."""
    if off := why_nothing_is_saved(settings):
        return off
    if not settings.flag("enable_auto_memory"):
        switches = settings.switches("enable_auto_memory")
        return f"the memory of conversations is off: turn it on with {switches}"
    return ""
