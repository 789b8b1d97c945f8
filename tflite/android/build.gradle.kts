plugins {
    alias(libs.plugins.android.application) apply false
    alias(libs.plugins.android.library) apply false
    // For the module without Android; the Android plugin brings Kotlin along for the others, and takes this version of it.
    alias(libs.plugins.kotlin.jvm) apply false
}
