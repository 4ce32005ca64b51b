//! The replies that decisions give by themselves.

use types::Reply;

pub(crate) fn relaying_denied() -> Reply {
    Reply::enhanced(550, 5, 7, 1, "relaying denied")
}

pub(crate) fn unknown_user() -> Reply {
    Reply::enhanced(550, 5, 1, 1, "no such user here")
}

pub(crate) fn disabled() -> Reply {
    Reply::enhanced(550, 5, 2, 1, "mailbox is disabled")
}

pub(crate) fn endless_expansion() -> Reply {
    Reply::enhanced(554, 5, 4, 6, "aliases or forwards of this address go round in a loop or grow beyond bounds")
}

pub(crate) fn authentication_required() -> Reply {
    Reply::enhanced(530, 5, 7, 0, "authentication required")
}

pub(crate) fn no_listener() -> Reply {
    Reply::enhanced(451, 4, 3, 5, "this listener is being reconfigured, try again later")
}

pub(crate) fn faulty_configuration() -> Reply {
    Reply::enhanced(451, 4, 3, 5, "no route for this address at the moment, try again later")
}

/// A table that a decision needs could not be read: 451, never "no match".
pub fn lookup_failed() -> Reply {
    Reply::enhanced(451, 4, 3, 0, "a lookup failed, try again later")
}

/// A user writes under an address that is somebody else's.
pub fn not_own_address() -> Reply {
    Reply::enhanced(553, 5, 7, 1, "you may send only as your own addresses")
}
