//! Panics of a node's tasks: tokio would keep them to itself, and a history must end with
//! them.

use std::cell::RefCell;
use std::sync::Once;

/// The hook is the process's, what it hears the thread's.
static HOOK: Once = Once::new();

thread_local! {
    static FIRST: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Forgets what was heard on this thread and listens.
pub fn listen() {
    FIRST.set(None);
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            FIRST.with_borrow_mut(|first| {
                first.get_or_insert_with(|| info.to_string());
            });
            before(info);
        }));
    });
}

/// The first panic on this thread since [`listen`].
pub fn first() -> Option<String> {
    FIRST.with_borrow(Clone::clone)
}
