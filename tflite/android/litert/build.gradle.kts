plugins {
    alias(libs.plugins.android.library)
}

android {
    namespace = "org.kpose.pose.litert"
    compileSdk = libs.versions.compile.sdk.get().toInt()

    defaultConfig {
        minSdk = libs.versions.min.sdk.get().toInt()
    }

    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_11
        targetCompatibility = JavaVersion.VERSION_11
    }
}

dependencies {
    api(project(":pose"))
    implementation(libs.litert)
    // The GPU accelerator is an artifact of its own since LiteRT 2.3.
    runtimeOnly(libs.litert.gpu)
}
