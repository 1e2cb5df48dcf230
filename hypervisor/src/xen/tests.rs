use super::*;

#[test]
fn device_when_there_is_no_xen_then_the_message_names_it_and_says_so() {
    if std::path::Path::new("/dev/xen/evtchn").exists() {
        eprintln!("SKIPPED device_when_there_is_no_xen_then_the_message_names_it_and_says_so: this is Xen");
        return;
    }
    let error = crate::open("xen", DomId(0)).err().unwrap().to_string();
    assert!(error.contains("/dev/xen/evtchn"), "{error}");
    assert!(error.contains("the kernel is not running on Xen"), "{error}");
}

#[test]
fn name_when_xen_is_given_an_argument_then_is_refused() {
    assert!(matches!(crate::open("xen:1", DomId(0)), Err(Error::Spec { .. })));
}
