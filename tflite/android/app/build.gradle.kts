plugins {
    alias(libs.plugins.android.application)
}

android {
    namespace = "org.kpose.app"
    compileSdk = libs.versions.compile.sdk.get().toInt()

    defaultConfig {
        applicationId = "org.kpose.app"
        minSdk = libs.versions.min.sdk.get().toInt()
        targetSdk = libs.versions.compile.sdk.get().toInt()
        versionCode = 1
        versionName = "1.0"
    }

    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_11
        targetCompatibility = JavaVersion.VERSION_11
    }

    androidResources {
        // LiteRT maps the network from the APK, which it can only where it is not compressed.
        noCompress += "tflite"
    }

    sourceSets {
        // For the receipt.
        getByName("main").assets.directories.add(rootDir.resolve("../golden").path)
    }
}

dependencies {
    implementation(project(":litert"))
    implementation(libs.activity)
    implementation(libs.camera.camera2)
    implementation(libs.camera.lifecycle)
    implementation(libs.camera.view)
}
