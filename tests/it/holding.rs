//! An origin that answers when the test lets it.

use std::sync::{Mutex, mpsc};

use crate::harness::{Origin, respond};

/// An origin that holds every request for `/hold` until it is let go.
pub fn holding() -> (Origin, mpsc::Sender<()>, mpsc::Receiver<()>) {
    let (release, held) = mpsc::channel::<()>();
    let (entered, inside) = mpsc::channel();
    let (held, entered) = (Mutex::new(held), Mutex::new(entered));
    let origin = Origin::spawn(move |head, stream| {
        if head.starts_with("GET /hold") {
            entered.lock().expect("lock").send(()).expect("the test waits");
            // An error means that the test is over without letting it go.
            if held.lock().expect("lock").recv().is_err() {
                return false;
            }
        }
        respond(stream, "ok")
    });
    (origin, release, inside)
}
